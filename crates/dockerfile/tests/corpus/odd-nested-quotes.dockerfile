FROM busybox
ENV a="b 'c' $PATH" d='e "f" $g' h="i\"j" k=l\ m
