FROM busybox
RUN --network= x
