FROM	busybox
ENV	a=b	c=d
COPY	a	b	/c/
