ARG V=1
FROM busybox
ARG V
ARG W=$V-x
COPY $V $W /x/
FROM busybox
COPY $V /x/
