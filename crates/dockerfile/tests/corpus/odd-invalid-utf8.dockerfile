FROM busybox
LABEL a=ÿþ b=c
