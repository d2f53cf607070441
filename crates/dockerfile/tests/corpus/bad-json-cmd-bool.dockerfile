FROM busybox
CMD [true]
