ARG a=${b:?no b}
FROM busybox
