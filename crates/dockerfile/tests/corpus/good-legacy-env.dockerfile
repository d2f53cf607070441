FROM busybox
ENV key some value with  spaces "and quotes"
LABEL com.example label value
