# escape=`
FROM busybox
WORKDIR C:\path
RUN echo a `
    b
COPY a`$b /c/
ENV x=a`"b
