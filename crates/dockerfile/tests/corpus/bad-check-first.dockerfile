# check=error=maybe
# no instruction
