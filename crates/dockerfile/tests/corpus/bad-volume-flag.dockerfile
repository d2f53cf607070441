FROM busybox
VOLUME --x /a
