FROM busybox AS a
FROM busybox AS a
FROM busybox
COPY --from=a x y
