FROM busybox
ENV a=$b b=$c
ENV $d=1
ENV legacy $e f
