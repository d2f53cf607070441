FROM busybox
WORKDIR --x
