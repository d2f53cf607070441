FROM busybox
RUN --mount=type=cache,traget=/x true
