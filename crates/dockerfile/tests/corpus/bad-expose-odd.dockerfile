FROM busybox
EXPOSE 80/tcp/x 1-2-3 +1
