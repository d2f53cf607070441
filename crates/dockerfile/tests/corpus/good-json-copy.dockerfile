FROM busybox
COPY ["a b", "c d", "/e f/"]
ADD ["x", "/y"]
COPY [ "a", "/b" ]
