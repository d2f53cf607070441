FROM busybox
ENV x=${nope%\*}
