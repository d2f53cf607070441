FROM busybox
# comment

  # indented

RUN a \

# c

 b
