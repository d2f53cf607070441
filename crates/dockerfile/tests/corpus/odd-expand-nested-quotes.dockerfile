FROM busybox
ENV a=1
COPY "${a:+"x y"}" ${a:+"x y"} /z/
