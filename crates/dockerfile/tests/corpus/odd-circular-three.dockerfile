FROM busybox AS a
COPY --from=c x y
FROM busybox AS b
COPY --from=a x y
FROM busybox AS c
COPY --from=b x y
