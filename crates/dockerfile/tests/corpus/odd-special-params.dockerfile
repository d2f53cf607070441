FROM busybox
COPY $1 $@ $$ ${0} $- x$ /y/
