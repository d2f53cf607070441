FROM busybox
CMD ["a"]
CMD ["b"]
cmd ["c"]
ENTRYPOINT ["a"]
ENTRYPOINT ["b"]
HEALTHCHECK NONE
HEALTHCHECK CMD a
FROM busybox
CMD ["a"]
