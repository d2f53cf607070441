   FROM busybox   
   RUN   echo   spaced   
	COPY a /b
