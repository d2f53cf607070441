FROM busybox
CMD ["\u0041", "\n", "C:\\x"]
ENTRYPOINT ["a\q"]
