FROM busybox
COPY <<"a b" /x
$nope
a b
