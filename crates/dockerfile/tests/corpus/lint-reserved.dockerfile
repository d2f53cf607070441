FROM busybox AS scratch
FROM busybox AS context
FROM busybox AS Context
