FROM busybox
WRKDIR x
