FROM busybox
RUN cat << E
