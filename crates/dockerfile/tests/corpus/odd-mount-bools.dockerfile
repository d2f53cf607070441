FROM busybox
RUN --mount=type=bind,target=/a,ro=1,rw=F --mount=type=cache,target=/b,readonly=t x
