FROM busybox
RUN --mount=type=cache,foo true
