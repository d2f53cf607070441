FROM busybox AS a
ONBUILD COPY --zz a b
FROM a
