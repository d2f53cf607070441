FROM busybox
COPY --chown="a b" --chmod='755' x /y
COPY -- a /b
