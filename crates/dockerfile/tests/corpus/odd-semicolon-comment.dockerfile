FROM busybox # not a comment
