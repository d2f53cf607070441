FROM busybox
COPY ${1a} /z/
