FROM busybox
CMD --x a
