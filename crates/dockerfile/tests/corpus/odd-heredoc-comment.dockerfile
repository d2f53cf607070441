FROM busybox
RUN <<E
# comment
\
E
