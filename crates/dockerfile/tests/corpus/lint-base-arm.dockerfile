FROM --platform=linux/arm64 busybox AS y-arm64
RUN x
