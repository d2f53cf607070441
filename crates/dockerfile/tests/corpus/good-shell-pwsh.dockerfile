FROM busybox
SHELL ["powershell", "-Command"]
CMD Write-Host hello
ENTRYPOINT Write-Host hello
