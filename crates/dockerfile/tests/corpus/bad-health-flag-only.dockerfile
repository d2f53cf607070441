FROM busybox
HEALTHCHECK --interval=1m
