FROM busybox
RUN cat <<<word
RUN echo $((1 << 2)) <<
RUN a<<b c
