ARG A=busy
ARG B=${A}box
FROM $B
RUN true
