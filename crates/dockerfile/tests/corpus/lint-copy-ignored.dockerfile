# check=experimental=all
FROM busybox
COPY secret.txt /x
COPY dir/sub/file /x
ADD dir /y
COPY ok.txt /z
COPY --from=busybox secret.txt /q
COPY . /all
