ARG P=linux/amd64
FROM --platform=$P busybox
FROM --platform=${P:+linux/arm64} scratch
