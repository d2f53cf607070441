ARG a=${b:?no}
FROM busybox
