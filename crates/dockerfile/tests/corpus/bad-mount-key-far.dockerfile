FROM busybox
RUN --mount=type=cache,zzzzzz=/x true
