FROM busybox
COPY ${} /x
