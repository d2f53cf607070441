# check=experimental=all
FROM busybox AS x
