"""`conformance` is found under its plain name, here and by whoever else runs its cases."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
