FROM busybox
COPY --chmod=99999 a b
