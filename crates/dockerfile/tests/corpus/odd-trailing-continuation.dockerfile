FROM busybox
CMD ["a", \
 "b"] \
# end
