FROM busybox
RUN --mount=type=ca\"che,target=/a x
