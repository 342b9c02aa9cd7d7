"""The pages' own helpers are found by their plain names."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
