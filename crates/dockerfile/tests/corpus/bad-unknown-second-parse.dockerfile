FROM busybox
BAD x
ENV y
