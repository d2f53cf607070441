FROM busybox
ADD --unpack=false a.tar /x
ADD --unpack b.tar /y
