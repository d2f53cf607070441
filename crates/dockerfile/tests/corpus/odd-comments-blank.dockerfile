# check=experimental=all
# wrong


FROM busybox AS x
