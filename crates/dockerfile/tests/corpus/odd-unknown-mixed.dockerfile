FROM busybox
Runn x
