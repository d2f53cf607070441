FROM busybox
ADD --checksum=sha256:zz https://e/x /y
