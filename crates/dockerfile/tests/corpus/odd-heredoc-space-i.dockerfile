FROM busybox
RUN a <<b<<c
notaninstruction
b
