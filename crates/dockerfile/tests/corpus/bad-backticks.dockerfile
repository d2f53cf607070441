FROM busybox
```
