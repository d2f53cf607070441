FROM busybox
WORKDIR <<E
E
