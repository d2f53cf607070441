FROM busybox
COPY ${1} ${12a} $12a /z/
