FROM busybox
RUN <<EOF
set -e
echo one
EOF
RUN <<-"END" cat >/x
	tabbed $NOPE
	END
COPY <<one.txt <<'two.txt' /dst/
one $PATH
one.txt
two $NOPE
two.txt
RUN 3<<A 4<<B cat /dev/fd/3 /dev/fd/4
a
A
b
B
RUN <<EOF1 cat; cat <<EOF2
x
EOF1
y
EOF2
ADD --chmod=0644 <<f /f
data
f
