FROM busybox
RUN echo \\
RUN echo a \   
  b
RUN echo c:\\
ENV x=1
