# check=skip=all;error=true;experimental=all
FROM busybox as X
