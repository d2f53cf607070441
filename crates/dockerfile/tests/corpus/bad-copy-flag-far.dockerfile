FROM busybox
COPY --zzzzzzzz=a a b
