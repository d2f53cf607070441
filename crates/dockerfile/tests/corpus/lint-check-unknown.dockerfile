# check=skip=Nope
FROM busybox AS X
