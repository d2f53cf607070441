# check=skip=StageNameCasing;skip=FromAsCasing
FROM busybox as X
