FROM busybox
ENV x=${PATH//\//-} y=${PATH/\/usr/} z=${PATH//:/ }
COPY $x $y "$z" /d/
