FROM busybox
RUN --mount=target=/x,size=1,type=tmpfs x
