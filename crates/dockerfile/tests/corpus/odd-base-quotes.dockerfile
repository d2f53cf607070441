FROM "busybox"
RUN x
