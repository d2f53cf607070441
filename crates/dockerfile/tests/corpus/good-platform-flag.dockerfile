FROM --platform=linux/amd64 busybox AS x-amd64
RUN true
FROM --platform=linux/arm64/v8 scratch AS arm64
