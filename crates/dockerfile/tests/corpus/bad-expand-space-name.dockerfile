FROM busybox
ENV x="${ a}"
