FROM busybox
RUN cat << E
notaninstruction
E
RUN y
