FROM busybox
ENV --x=y a=b
