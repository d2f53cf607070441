FROM busybox
RUN --mount=type=cache,target=/x,target=/y,type=cache x
