FROM busybox
RUN --mount=target=/ctx true
RUN --mount=type=bind,source=a,dst=/a,rw true
RUN --mount=type=bind,src=a,destination=/a,readwrite=false true
RUN --mount=type=cache,target=/c,id=x,sharing=private,mode=0755,uid=1,gid=2 true
RUN --mount=type=cache,dst=/c,from=busybox,source=/etc,ro true
RUN --mount=type=tmpfs,target=/t,size=10m true
RUN --mount=type=secret,id=s,required true
RUN --mount=type=secret,id=s,env=S,required=true true
RUN --mount=type=secret,source=x,target=/run/x,mode=0400,uid=3,gid=4 true
RUN --mount=type=ssh true
RUN --mount=type=ssh,id=k,target=/agent,required=false,mode=600 true
RUN --mount=type=cache,target=/one --mount=type=tmpfs,target=/two true
RUN "--mount=type=cache,target=/q" true
