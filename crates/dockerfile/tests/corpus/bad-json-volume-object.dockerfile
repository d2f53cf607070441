FROM busybox
VOLUME [{"a": 1}]
