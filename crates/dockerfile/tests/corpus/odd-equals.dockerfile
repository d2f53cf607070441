FROM busybox
LABEL "a b"=c d="e=f" g=h=i
ENV j=k=l m="n=o"
