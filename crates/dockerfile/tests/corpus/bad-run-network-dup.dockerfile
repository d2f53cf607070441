FROM busybox
RUN --network=none --network=host x
