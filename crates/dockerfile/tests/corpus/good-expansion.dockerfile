FROM busybox
ENV a=1 b=file.tar.gz c=
COPY ${a:-x} ${a-x} ${z:-y} ${z-y} ${c:-empty} ${c-empty} ${a:+alt} ${z:+alt} ${a+alt} /d/
COPY ${b%.*} ${b%%.*} ${b#*.} ${b##*.} ${b/tar/zip} ${b//a/A} "${b%'.gz'}" /d/
COPY ${z:-${a:-${b}}} $a$b '$a' "\$a" \$a /d/
COPY ${b/file/${a}} ${b%${c:-gz}} /d/
