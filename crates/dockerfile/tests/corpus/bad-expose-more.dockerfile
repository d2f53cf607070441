FROM busybox
EXPOSE 8 "9" 7-7 [::1]:80:80 -1
