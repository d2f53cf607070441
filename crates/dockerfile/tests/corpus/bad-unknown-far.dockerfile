FROM busybox
XYZZYX true
