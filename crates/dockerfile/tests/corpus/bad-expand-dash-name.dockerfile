FROM busybox
COPY ${a.b} /z
