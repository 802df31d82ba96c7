"""Put ``src/`` of this checkout first on the import path.

A copy of the checkout, as of ``dvc exp run --temp``, then runs its own code, in any shell and on any system.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
