FROM busybox
RUN --mount=type=bind,target=/x,mode=7 true
