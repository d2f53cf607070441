FROM busybox
RUN <<EOF
#!/usr/bin/env python
print("FROM nothing")
EOF
CMD ["x"]
