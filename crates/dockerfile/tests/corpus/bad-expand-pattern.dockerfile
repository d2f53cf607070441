FROM busybox
ENV a=1
COPY ${a#\x} /x
