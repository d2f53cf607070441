ARG a
FROM ${a:?needs}
