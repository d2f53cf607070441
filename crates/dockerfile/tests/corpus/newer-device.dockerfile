FROM busybox
RUN --device=nvidia.com/gpu=all true
