FROM busybox
COPY <<E /x
\$nope $PATH \\ ${nope:-d}
E
