FROM busybox
RUN --mount=type=cache,tgt=/x,traget=/y true
COPY --exclud=a b c
