FROM busybox
RUN --mount=type=cache,target=/x --network=none echo --mount=not-a-flag
