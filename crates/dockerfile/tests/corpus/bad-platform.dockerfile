FROM --platform=linux/x! busybox
