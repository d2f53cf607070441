FROM busybox AS one
RUN true
FROM ONE
RUN true
