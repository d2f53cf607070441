FROM scratch AS one
COPY a /
FROM one AS two
COPY b /
FROM busybox
COPY --from=one /a /
COPY --from=1 /b /
COPY --from=busybox /x /
RUN --mount=type=bind,from=two,target=/m true
