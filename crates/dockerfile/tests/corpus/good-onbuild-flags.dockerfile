FROM busybox
ONBUILD COPY --from=busybox --chown=1 a b
ONBUILD RUN --mount=type=cache,target=/x true
ONBUILD run lower
