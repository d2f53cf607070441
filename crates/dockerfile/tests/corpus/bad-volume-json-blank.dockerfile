FROM busybox
VOLUME ["  "]
