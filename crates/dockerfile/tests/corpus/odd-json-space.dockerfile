FROM busybox
CMD   ["a"]  
ENTRYPOINT	["b"]
