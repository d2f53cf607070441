FROM busybox
RUN ["sh", "-c", "cat <<EOF"]
COPY ["<<EOF", "/x"]
