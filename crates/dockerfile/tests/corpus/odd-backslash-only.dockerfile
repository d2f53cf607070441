FROM busybox
\
RUN x
