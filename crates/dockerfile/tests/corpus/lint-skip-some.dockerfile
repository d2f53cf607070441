# check=skip=StageNameCasing, MaintainerDeprecated
FROM busybox as X
MAINTAINER x
