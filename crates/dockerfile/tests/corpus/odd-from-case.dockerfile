FROM busybox AS a
FROM a AS b
COPY --from=A x y
RUN --mount=from=B,target=/x true
