FROM busybox
RUN --mount=type=bind,source=${nope},target=/a,from=busybox true
RUN --mount=type=secret,id=$who true
