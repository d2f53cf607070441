FROM busybox AS a
SHELL ["/bin/sh", "-c"]
FROM a
CMD x
FROM basic:1
CMD x
