# check=experimental=CopyIgnoredFile
FROM busybox
COPY secret.txt /x
