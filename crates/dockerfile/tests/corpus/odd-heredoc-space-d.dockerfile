FROM busybox
COPY << E /x
notaninstruction
E
RUN y
