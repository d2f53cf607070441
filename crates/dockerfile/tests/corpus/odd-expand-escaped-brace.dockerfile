FROM busybox
COPY ${a:-\}} ${a:-"}"} /z/
