FROM busybox
ARG --x a
CMD ["x"]
