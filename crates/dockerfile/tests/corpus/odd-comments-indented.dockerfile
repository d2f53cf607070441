# check=experimental=all
  # x described
FROM busybox AS x
