FROM busybox
RUN ["a"] x
COPY ["a", "b"] c
