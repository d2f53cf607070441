FROM busybox
EXPOSE /tcp
