


  
FROM busybox
