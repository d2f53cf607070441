FROM busybox
run a
