# syntax=
FROM busybox
XYZZYX
