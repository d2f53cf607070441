FROM busybox
RUN ["echo", 'single']
CMD [echo, x]
ENTRYPOINT ["a" "b"]
