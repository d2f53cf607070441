FROM busybox
ENV a=1 b=file.tar.gz empty= spaced="x  y" path=/usr/local/bin:/usr/bin star="a*b" q='it"s'
ENV t001=$a t002=${a} t003=$a$a t004=x${a}y t005=$nope t006=[${nope}]
ENV t011='$a' t012="$a" t013="'$a'" t014='"$a"' t015=\$a t016="\$a" t017="\x" t018="\"" t019=\\ t020="\\"
ENV t021=a\ b t022="a b" t023='a b' t024=a"b c"d t025=a'b'"c" t026="" t027='' t028="a\\b" t029=a\\b t030=\"x\"
ENV t031=$ t032=a$ t033="$" t034="a$ b" t035=$$ t036=$1 t037=$1x t038=${1} t039=$a.b t040=$a-b t041=$a/b t042=$_x
ENV t051=${nope:-w} t052=${nope-w} t053=${empty:-w} t054=${empty-w}x t055=${a:-w} t056=${a-w} t057=${a:+w} t058=${a+w}
ENV t061=${empty:+w}x t062=${empty+w} t063=${nope:+w}x t064=${nope+w}x t065=${a:?e} t066=${a?e} t067=${empty?e}x
ENV t071=${nope:-$a} t072=${nope:-${b}} t073=${nope:-${nope:-${a}}} t074=${nope:-'$a'} t075=${nope:-"$a"} t076=${nope:-\$a}
ENV t081="${nope:-a b}" t083="${nope:-'a b'}" t084="${nope:-a}b" t085=${nope:-a\}b} t086="${nope:-a\}b}"
ENV t087=${nope:-'}'} t088=${nope:-"}"}
ENV t101=${b%.*} t102=${b%%.*} t103=${b#*.} t104=${b##*.} t105=${b#file} t106=${b%gz} t107=${b#x} t108=${b%x} t109=${b#*} t110=x${b##*}
ENV t111=${b#?} t112=${b##?} t113=${b%?} t114=${b%%??} t115=${b#fi*e} t116=${b##*a*.} t117=${star#a\*} t118=${star#a*} t119=${b#'file.'} t120=${b%".gz"}
ENV t121=${b#$nope} t122=${b%${nope:-.gz}} t123=${nope#x}y t124=${empty%x}y t125="${b#*.}" t126=${path##*/} t127=${path%/*} t128=${path%%:*}
ENV t131=${b/tar/zip} t132=${b/x/y} t133=${b//./-} t134=${b/./-} t135=${b/.*/} t136=${b//[a-z]/x} t137=${b/f*e/$a} t138=${path//\//_} t139=${path/\/usr/}
ENV t141=${b/?/X} t142=${b//?/X} t143=${star/\*/+} t144=${b/tar/"a b"} t145=${b/tar/'q'} t146=${nope/a/b}x t147=${b/${a}/z} t148=${b//a*/X} t149="${b//a/ }"
ENV t151=${b/t/\/} t152=${b/tar/\}} t153=${b//tar/$b} t154="${path//:/ }" t155=${b/.tar/} t156=${b//a/aa}
ENV legacy1 some  value with "quotes" and $a
ENV legacy2 'a' "b" \$a ${b%.gz}
ENV legacy3	tab	separated
ENV $a=key x$a=y "k k"=z
LABEL l1=$a l2="$b x" "l 3"='$a' l4=${nope:-d} $a=lk l5=a\
b
LABEL legacy a label $a "q"
ARG arg1=$b
ENV t161=$arg1 t162=${arg1:+set}
ENV t163=$spaced t164="$spaced" t165=$spaced$spaced
ENV t171=é$a t172=${nope:-ü} t173=${b/t/ß} t174="日$a本"
WORKDIR $path/$a/..
USER ${nope:-"u s"}:$a
STOPSIGNAL ${nope:-SIGINT}
VOLUME $a/v [x
VOLUME ["$b", "x y"]
EXPOSE $a 80-82/tcp ${nope:-53/UDP}
CMD ["a", "\u0062", "$c"]
ENTRYPOINT sh -c "$a" 'x'
HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=2h --start-interval=1ms --retries=7 CMD curl "$a"
ONBUILD COPY $a /b
ONBUILD RUN ["x", "$y"]
SHELL ["/bin/sh", "-x", "-c"]
