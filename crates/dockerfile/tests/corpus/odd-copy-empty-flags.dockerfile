FROM busybox
COPY --chown= --chmod= --from= a b
