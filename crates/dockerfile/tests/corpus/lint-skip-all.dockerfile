# check=skip=all
FROM busybox as X
MAINTAINER x
