"""Keeps the interpreter busy. Usage: busy.py SECONDS."""

import sys
import time

deadline = time.monotonic() + float(sys.argv[1])
state = 1
while time.monotonic() < deadline:
    for turn in range(10_000):
        state = (state * 3 + turn) & 0xFFFF_FFFF
