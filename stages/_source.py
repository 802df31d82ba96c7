"""Set-up before a stage imports anything else: this checkout's code, and a folder for temporary files.

Copies of the checkout, such as those of ``dvc exp run --temp``, thus run their own code on any system.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
try:
    tempfile.gettempdir()  # Matplotlib and PyTorch need it when they are imported
except FileNotFoundError as error:
    sys.exit(f"{Path(sys.argv[0]).stem}: error: {error.strerror}; set TMPDIR to a writable folder")
