FROM busybox
ENV abc=hello
ENV abc=bye def=$abc
COPY $def $abc /x/
