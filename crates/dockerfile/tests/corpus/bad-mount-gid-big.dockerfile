FROM busybox
RUN --mount=type=cache,target=/x,gid=4294967296 x
