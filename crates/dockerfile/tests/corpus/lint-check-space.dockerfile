# check = skip = StageNameCasing ; error = false
FROM busybox AS X
