FROM busybox AS b
ONBUILD ENV got=1
ONBUILD COPY $got /x/
ONBUILD COPY <<E /y
hi
E
FROM b
COPY $got /z/
