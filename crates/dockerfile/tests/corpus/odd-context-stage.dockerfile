FROM scratch AS context
COPY --from=context a /
