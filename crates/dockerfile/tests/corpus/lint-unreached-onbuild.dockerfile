FROM busybox AS a
ONBUILD WORKDIR rel
FROM a AS b
FROM busybox
