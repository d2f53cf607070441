FROM busybox
ADD --keep-git-dir --link=false https://e/x.git#a /x
ADD --chown=1:2 --checksum=x https://e/x.git /y
