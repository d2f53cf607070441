FROM busybox
FROM
RUN
