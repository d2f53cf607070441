FROM busybox
WORKDIR ${
