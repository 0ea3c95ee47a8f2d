"""Ends with 0 if the daemon at this HTTP port of this machine answers /readyz with 200: ``python ready.py 4151``."""

import sys
from urllib.error import URLError
from urllib.request import urlopen

try:
    urlopen(f"http://127.0.0.1:{int(sys.argv[1])}/readyz", timeout=4).close()
except URLError as error:
    reason = error.read().decode() if hasattr(error, "read") else str(error.reason)
    sys.exit(reason)
except OSError as error:
    sys.exit(str(error))
