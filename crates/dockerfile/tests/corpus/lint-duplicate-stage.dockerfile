FROM busybox AS b
FROM busybox AS b
FROM busybox AS B
