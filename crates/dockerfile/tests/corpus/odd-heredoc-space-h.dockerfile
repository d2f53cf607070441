FROM busybox
RUN a <<

RUN y
