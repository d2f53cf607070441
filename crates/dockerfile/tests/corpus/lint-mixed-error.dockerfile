from busybox
Run a
COPY ${ b
