FROM busybox
ARG x=busybox
COPY --from=$x a b
