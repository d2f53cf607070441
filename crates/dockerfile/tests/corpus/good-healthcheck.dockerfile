FROM busybox
HEALTHCHECK --start-period=1m --start-interval=5s --timeout=2h45m --interval=1.5s CMD ["a", "b"]
