FROM busybox
RUN cat <<
notaninstruction

RUN y
