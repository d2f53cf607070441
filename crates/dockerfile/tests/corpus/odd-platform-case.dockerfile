FROM --platform=Linux/AMD64 busybox AS y
