FROM busybox
COPY <<E /x
"$nope '$PATH
E
