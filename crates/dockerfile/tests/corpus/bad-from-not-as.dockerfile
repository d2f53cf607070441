FROM busybox IS a
