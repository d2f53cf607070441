FROM busybox
RUN echo a \
# comment
   # indented comment
 && echo b \

 && echo c
COPY a \
     # c
     b /c/
