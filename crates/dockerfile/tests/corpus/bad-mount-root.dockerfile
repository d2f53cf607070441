FROM busybox
RUN --mount=type=bind true
RUN --mount=type=cache,target=/ true
