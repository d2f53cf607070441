FROM busybox
RUN --mount=type=bind,"a true
