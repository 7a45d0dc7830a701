"""Set the clock of a process back by one day. Python imports this module if its folder is on the PYTHONPATH."""

import time

_now = time.time
time.time = lambda: _now() - 86_400
