FROM busybox
ENV a b=c
LABEL x y=z
