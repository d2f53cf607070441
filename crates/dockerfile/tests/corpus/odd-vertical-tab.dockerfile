FROM busybox
RUNtrue
COPY ab /c/
