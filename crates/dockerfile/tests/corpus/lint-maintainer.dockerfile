FROM busybox
MAINTAINER a@b
maintainer c
