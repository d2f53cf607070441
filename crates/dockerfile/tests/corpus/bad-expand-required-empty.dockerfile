FROM busybox
ENV a=
COPY ${a:?} /x
