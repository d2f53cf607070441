FROM busybox
COPY /z ${a:
