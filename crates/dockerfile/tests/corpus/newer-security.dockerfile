FROM busybox
RUN --security=sandbox true
RUN --security=insecure true
