FROM scratch
ADD a /
RUN ["/a"]
