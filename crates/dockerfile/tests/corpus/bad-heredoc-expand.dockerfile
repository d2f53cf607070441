FROM busybox
COPY <<E /x
${
E
