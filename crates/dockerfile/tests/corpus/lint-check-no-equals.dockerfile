# check=all
FROM busybox
