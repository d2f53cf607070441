FROM busybox
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.com/a.tar /x/
ADD --keep-git-dir=true https://github.com/moby/buildkit.git#v0.10.1 /src
ADD git@github.com:moby/buildkit.git /src2
ADD --link --exclude=*.md --exclude=doc . /all/
COPY --exclude=x --exclude=$PATH a /b
