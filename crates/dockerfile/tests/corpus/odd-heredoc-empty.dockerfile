FROM busybox
RUN <<E
E
COPY <<E /x
E
