FROM busybox
RUN --networks=none a
