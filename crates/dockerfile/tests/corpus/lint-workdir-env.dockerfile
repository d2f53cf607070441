FROM busybox
ENV d=/x
WORKDIR $d
WORKDIR y
