FROM busybox
ENV x=${PATH%\q}
