FROM busybox
     
RUN x
