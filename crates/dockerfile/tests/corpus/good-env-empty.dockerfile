FROM busybox
ENV a= b="" c=''
ARG x= y
LABEL e=
