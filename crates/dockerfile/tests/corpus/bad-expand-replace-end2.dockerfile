FROM busybox
ENV x=${PATH/a/b
