"""Set-up before a stage imports anything else: this checkout's code, what imports need, no garbage collection.

Copies of the checkout, such as those of ``dvc exp run --temp``, thus run their own code on any system. Collections
while some thousand modules are imported, and again as the interpreter ends, find nothing and take a fifth to a third of
a small stage's time; ``run_stage`` enables them for its work.
"""

import atexit
import gc
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent:  # a stage runs, nobody imports it
    gc.disable()
    atexit.register(gc.freeze)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from gender_classifier.errors import MissingPackageError

_STAGE = Path(sys.argv[0]).stem

try:
    tempfile.gettempdir()  # Matplotlib and PyTorch need it when they are imported
except FileNotFoundError as error:
    sys.exit(f"{_STAGE}: error: {error.strerror}; set TMPDIR to a writable folder")

for _package in ("torch", "mlflow", "dvc"):  # absent where the project was installed without its extra `pipeline`
    if find_spec(_package) is None:
        sys.exit(f"{_STAGE}: error: {MissingPackageError(_package, 'pipeline')}")
