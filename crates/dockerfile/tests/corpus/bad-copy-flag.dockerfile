FROM busybox
COPY --chownn=a a b
