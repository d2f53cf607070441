FROM busybox
COPY a --chown=1 b
