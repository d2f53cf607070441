FROM busybox
ADD --checksums=x a b
