FROM busybox
ONBUILD COPY --zz a b
