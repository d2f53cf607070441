FROM busybox
RUN <<E \
  cat
x
E
