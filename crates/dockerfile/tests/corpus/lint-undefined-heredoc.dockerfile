FROM busybox
COPY <<E /x
$undefined_in_doc $PATH
E
COPY <<"E" /x
$quoted
E
RUN <<E
echo $x
E
