FROM busybox
COPY git@github.com:a/b.git /y
