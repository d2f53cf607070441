FROM busybox
COPY 3<<E /x
a
E
