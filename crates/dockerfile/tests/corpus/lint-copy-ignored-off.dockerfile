FROM busybox
COPY secret.txt /x
