FROM busybox
run <<eof
x
EOF
eof
