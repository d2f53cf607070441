ARG a
FROM ${a:?needs a}
