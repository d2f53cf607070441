FROM busybox
ENV a "b c" $PATH
ENV d   e\ f
