# check=skip=StageNameCasing;error=true
FROM busybox as X
MAINTAINER x
