FROM busybox
ENV FROMBASE=1
WORKDIR /srv
SHELL ["/bin/ash", "-c"]
ONBUILD COPY $trigger /x
