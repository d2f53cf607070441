FROM busybox
RUN --mount=type=secret,env=A,id=b x
