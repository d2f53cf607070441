# check=skip=all;
FROM busybox AS X
