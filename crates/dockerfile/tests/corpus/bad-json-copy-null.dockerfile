FROM busybox
COPY ["a", null]
