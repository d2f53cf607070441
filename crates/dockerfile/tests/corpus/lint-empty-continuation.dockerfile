FROM busybox
COPY a \

  b /c/
RUN x \

  && y \

  && z
