FROM busybox
COPY --bad \
  a \
  b
RUN x
