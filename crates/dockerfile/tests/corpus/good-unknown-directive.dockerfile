# foo=bar
# escape=`
FROM scratch
COPY a \
 b /
