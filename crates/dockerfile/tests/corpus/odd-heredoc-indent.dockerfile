FROM busybox
	RUN <<E
	E
E
COPY <<-E /x
	a
		E
