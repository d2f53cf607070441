FROM busybox
USER $unset
WORKDIR $unset
VOLUME $unset
