FROM busybox
ENV a b
LABEL c d
env e f
ENV g=h
