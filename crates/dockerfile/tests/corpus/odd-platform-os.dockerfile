FROM --platform=linux busybox AS y
