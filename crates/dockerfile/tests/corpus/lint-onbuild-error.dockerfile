FROM busybox AS a
ONBUILD COPY $x /y
ONBUILD COPY --from=9 a b
FROM a
