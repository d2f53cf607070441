FROM busybox AS a
ARG one=1
ENV two=2
FROM a
COPY $one $two $three /x/
