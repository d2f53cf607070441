FROM busybox
HEALTHCHECK --interval=0s --timeout= --retries=+3 CMD x
HEALTHCHECK cmd x
HEALTHCHECK none
