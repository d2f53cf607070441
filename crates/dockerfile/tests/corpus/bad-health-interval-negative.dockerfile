FROM busybox
HEALTHCHECK --interval=-1s CMD x
