FROM busybox
CMD echo hi
ENTRYPOINT echo hi
FROM busybox
cmd x
