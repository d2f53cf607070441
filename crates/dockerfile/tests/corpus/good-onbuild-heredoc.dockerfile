FROM busybox
ONBUILD COPY <<E /x
hi $y
E
ONBUILD RUN <<E
x
E
