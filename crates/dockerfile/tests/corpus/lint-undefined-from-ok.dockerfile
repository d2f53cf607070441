FROM busybox:$VERSION
