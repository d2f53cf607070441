FROM busybox
RUN --mount=type=secret,env=A x
