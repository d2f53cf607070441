FROM busybox
RUN true
