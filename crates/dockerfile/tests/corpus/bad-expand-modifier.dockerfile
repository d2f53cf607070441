FROM busybox
COPY ${a:xb} /x
