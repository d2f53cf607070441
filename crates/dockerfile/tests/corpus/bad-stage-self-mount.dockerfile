FROM busybox AS a
RUN --mount=from=0,target=/x true
