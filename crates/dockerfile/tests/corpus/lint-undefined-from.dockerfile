ARG VERSION=1
FROM busybox:$VERSOIN
FROM busybox${nothing}
FROM --platform=$BULIDPLATFORM busybox
