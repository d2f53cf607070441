FROM busybox
RUN echo # shell comment
RUN # all comment
