# just this

# and that
