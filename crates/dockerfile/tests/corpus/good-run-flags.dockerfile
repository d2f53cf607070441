FROM busybox
RUN --network=none true
RUN --network=default true
RUN --network=host true
