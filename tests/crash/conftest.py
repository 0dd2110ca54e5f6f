"""Lets the tests here use the simulated world of the core's tests."""

import sys
from pathlib import Path

CORE = str(Path(__file__).resolve().parents[1] / "core")
if CORE not in sys.path:
    sys.path.append(CORE)
