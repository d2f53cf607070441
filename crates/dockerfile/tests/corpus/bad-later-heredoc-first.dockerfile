FROM busybox
BAD x
RUN <<E
