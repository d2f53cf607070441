ARG g=1 h=$g i=$nope
ARG j=${g}x
FROM busybox
ARG g
ARG i
COPY $g $h $i /x/
