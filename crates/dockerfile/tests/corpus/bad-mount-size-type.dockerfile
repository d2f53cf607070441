FROM busybox
RUN --mount=type=cache,target=/x,size=1 true
