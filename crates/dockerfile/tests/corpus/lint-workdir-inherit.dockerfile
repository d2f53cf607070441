FROM busybox AS a
WORKDIR rel
FROM a
WORKDIR again
