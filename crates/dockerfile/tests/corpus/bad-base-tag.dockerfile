FROM busybox:a/b
