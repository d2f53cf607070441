FROM busybox AS a
RUN --mount=from=a,target=/x true
