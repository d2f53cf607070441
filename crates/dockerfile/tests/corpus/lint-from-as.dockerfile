FROM busybox as a
from busybox AS b
From busybox as c
