FROM --platform=$TARGETPLATFORM busybox
FROM --platform=${TARGETPLATFORM} busybox
FROM --platform=${TARGETPLATFORM:-x} busybox
FROM --platform=linux/$TARGETARCH busybox
