FROM busybox
USER $a
USER
