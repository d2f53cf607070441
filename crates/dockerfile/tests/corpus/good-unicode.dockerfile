FROM busybox
LABEL ключ=значение emoji="🐳 whale"
RUN echo 日本語
ENV Ünï=x
