FROM busybox
COPY --checksum=sha256:x a b
