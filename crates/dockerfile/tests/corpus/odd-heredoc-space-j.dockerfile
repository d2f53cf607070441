FROM busybox
RUN a << $((2))
notaninstruction
$((2))
