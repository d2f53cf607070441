FROM busybox
COPY --chmod=-1 a b
