FROM busybox
VOLUME [" /a ", "/b"]
VOLUME /a  /b	/c
