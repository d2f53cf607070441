FROM busybox
ADD --unpack=yes a b
