FROM busybox as a # comment
