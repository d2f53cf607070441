FROM busybox AS a
FROM a AS b
ENV testkey value
FROM a AS c
