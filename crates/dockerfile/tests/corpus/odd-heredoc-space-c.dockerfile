FROM busybox
RUN cat << "E F"
notaninstruction
E F
RUN y
