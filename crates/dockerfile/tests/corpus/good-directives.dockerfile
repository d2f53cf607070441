#CHECK=skip=none
# Escape = \
FROM scratch
