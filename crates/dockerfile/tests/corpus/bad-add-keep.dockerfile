FROM busybox
ADD --keep-git-dir a b
ADD --from=x a b
