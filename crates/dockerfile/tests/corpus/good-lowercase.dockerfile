from busybox as x
run true
copy a /b
cmd ["x"]
