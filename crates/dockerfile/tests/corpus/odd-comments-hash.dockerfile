# check=experimental=all
# wrong
#
FROM busybox AS x
#x no space
ARG x
