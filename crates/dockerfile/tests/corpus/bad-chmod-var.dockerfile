FROM busybox
ARG m=nope
COPY --chmod=$m a b
