FROM --platform=freebsd/amd64 busybox AS y-freebsd
RUN x
