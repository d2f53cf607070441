FROM busybox
COPY --link=TRUE a b
COPY --link=1 a b
