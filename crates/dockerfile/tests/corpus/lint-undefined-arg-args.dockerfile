FROM busybox
ARG a
ARG b=$a c=$b d=$zz
COPY $a $b $c $d /x/
