FROM busybox AS a
RUN --mount=from=b,target=/x true
FROM busybox AS b
