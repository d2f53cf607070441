FROM busybox
run a
run b
Run c
COPY d /e
copy f /g
