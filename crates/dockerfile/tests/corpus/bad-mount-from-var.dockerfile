FROM busybox
RUN --mount=type=bind,from=$x,target=/x true
