# wrong
FROM busybox AS other
