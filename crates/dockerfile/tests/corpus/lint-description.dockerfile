# check=experimental=InvalidDefinitionDescription
# foo this is the foo
ARG foo=bar
# bar wrong
ARG baz=1
# base ok
FROM busybox AS base
# wrong name
FROM busybox AS other
# definitely bad
ARG version=latest

# definitely bad
ARG a=1 b=2
# spaced

ARG c
#
ARG d
# nothing for
FROM busybox
