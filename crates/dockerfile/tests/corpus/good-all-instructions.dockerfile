ARG BASE=busybox
FROM ${BASE} AS all
ARG one two=2 three="3 3"
ENV a=b c="d e" f='g $a' h=\$x
LABEL l1=v1 "l 2"="v 2" l3=$a
ADD --chown=0:0 --chmod=755 a b c /dst/
COPY --chmod=u=rwX,go= --link x y /dst/
RUN echo shell
RUN ["echo", "exec"]
WORKDIR /work
USER nobody:nogroup
VOLUME /data /more
VOLUME ["/json", "/vol ume"]
EXPOSE 80
STOPSIGNAL SIGTERM
SHELL ["/bin/sh", "-eu", "-c"]
HEALTHCHECK NONE
ONBUILD RUN echo later
CMD ["a"]
ENTRYPOINT ["b", "c"]
