FROM busybox
COPY ${a:?must be set} /x
