FROM busybox
ENV k=key
LABEL $k=v "${k} two"=w
ENV $k=v
