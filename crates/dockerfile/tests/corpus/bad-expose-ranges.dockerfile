FROM busybox
EXPOSE 1-2:3-6
