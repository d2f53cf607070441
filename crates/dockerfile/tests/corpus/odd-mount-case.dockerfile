FROM busybox
RUN --mount=TYPE=CACHE,Target=/x,SHARING=Locked true
