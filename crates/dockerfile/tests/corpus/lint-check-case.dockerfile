# CHECK=skip=all
FROM busybox as X
