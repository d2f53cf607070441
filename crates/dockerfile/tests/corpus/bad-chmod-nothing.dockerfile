FROM busybox
COPY --chmod=u a b
