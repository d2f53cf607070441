FROM busybox
HEALTHCHECK --retries=many CMD x
