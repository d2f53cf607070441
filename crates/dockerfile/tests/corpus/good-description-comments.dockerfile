# base the base stage
FROM busybox AS base
# foo what foo is
ARG foo=1
