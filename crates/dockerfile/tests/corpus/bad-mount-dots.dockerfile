FROM busybox
WORKDIR /w
RUN --mount=type=cache,target=.. x
