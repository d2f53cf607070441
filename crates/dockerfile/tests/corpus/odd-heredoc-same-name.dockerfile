FROM busybox
COPY <<E <<E /x/
a
E
b
E
