FROM scratch AS a
FROM a
COPY --from=0 /x /y
