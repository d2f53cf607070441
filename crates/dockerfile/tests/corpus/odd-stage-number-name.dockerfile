FROM busybox AS a
FROM busybox
COPY --from=00 x y
