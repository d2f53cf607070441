FROM busybox AS a
COPY --from=cFROM a b
COPY --from=a x y
