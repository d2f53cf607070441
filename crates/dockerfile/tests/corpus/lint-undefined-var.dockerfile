FROM busybox
COPY $foo .
ARG foo=bar
COPY $foo .
COPY $FOO ${other:-x} ${third} /y/
ENV PATH=$PAHT:/x
ENV A=$B B=$A
WORKDIR /$nothing
USER $nobody
LABEL a=$fo
VOLUME $vol
STOPSIGNAL ${sig}9
EXPOSE ${port}80
ARG z=$undefinedarg
RUN --mount=type=cache,target=$cachedir true
RUN echo $fine
CMD ["$fine"]
COPY --chown=$own --chmod=$mod a b
ADD --checksum=$sum https://e/x /y
