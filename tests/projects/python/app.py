import os
import sys

from itsdangerous import Signer
from markupsafe import escape

signed = Signer("key").sign(sys.argv[1]).decode().split(".")[0]
print(f"hello {escape('<' + signed + '>')} from {os.getuid() != 0}")
