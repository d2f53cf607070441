FROM busybox
STOPSIGNAL --x 9
CMD ["x"]
