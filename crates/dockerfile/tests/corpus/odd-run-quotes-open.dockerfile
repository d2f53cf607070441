FROM busybox
RUN echo "unbalanced
RUN echo '
