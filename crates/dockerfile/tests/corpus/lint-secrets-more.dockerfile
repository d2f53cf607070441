FROM busybox
ENV AUTH_=1 _KEY=2 A__TOKEN=3 TOKENS=4 mykey=5 PASSWORD1=6 SECRET-KEY=7 public_key=8
ARG aws_secret_access_key AWS_ACCESS_KEY_ID key=
