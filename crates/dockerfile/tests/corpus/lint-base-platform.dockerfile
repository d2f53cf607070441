FROM --platform=$P busybox
