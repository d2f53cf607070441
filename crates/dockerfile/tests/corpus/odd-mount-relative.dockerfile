FROM busybox
WORKDIR /w
RUN --mount=type=cache,target=rel --mount=type=bind,source=x x
