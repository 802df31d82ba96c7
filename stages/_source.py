"""What a stage needs before it imports anything: the code of this checkout, and a folder for temporary files.

A copy of the checkout, as of ``dvc exp run --temp``, then runs its own code, in any shell and on any system.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
try:
    tempfile.gettempdir()  # what Matplotlib and PyTorch ask for while they are imported
except FileNotFoundError as error:
    sys.exit(f"{Path(sys.argv[0]).stem}: error: {error.strerror}; set TMPDIR to a folder that can be written")
