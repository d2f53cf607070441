FROM busybox
COPY --chmod=648 a b
