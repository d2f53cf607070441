FROM busybox
RUN <<$E
x
$E
