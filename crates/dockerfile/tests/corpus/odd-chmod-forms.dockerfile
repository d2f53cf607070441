FROM busybox
COPY --chmod=0644 a b
COPY --chmod=a+rX a b
COPY --chmod=u=rw,go=r a b
COPY --chmod=+x a b
COPY --chmod=g=u a b
