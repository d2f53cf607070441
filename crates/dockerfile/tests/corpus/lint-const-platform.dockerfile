FROM --platform=linux/amd64 busybox
FROM --platform=linux/amd64 busybox AS build
FROM --platform=linux/amd64 busybox AS build-amd64
FROM --platform=linux/amd64 busybox AS my-linux
FROM --platform=$BUILDPLATFORM busybox
