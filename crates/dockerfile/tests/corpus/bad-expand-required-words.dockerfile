FROM busybox
COPY ${a:?"must be"} /x
