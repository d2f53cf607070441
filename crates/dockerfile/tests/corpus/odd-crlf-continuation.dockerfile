FROM busybox
COPY a \

  b /c/
# c
RUN <<E
E
