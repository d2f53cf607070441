FROM busybox
COPY --parents ./a/./b/*.txt /p/
