"""Cost of tracking: the share of a training that is spent on MLflow, and the time of `dvc repro` with nothing to do.

    python benchmarks/tracking.py faces.zip      about 10 minutes on 2 cores with 10,000 images and 20 epochs

The benchmark clones the last commit and uses its own MLflow store. It times every call into the tracking module and the
import of MLflow; the rest of the stage is the training itself.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="zip or folder with {Training,Validation}/{female,male}/*")
    parser.add_argument("--epochs", type=int, default=20, help="default: 20")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--stage", type=Path, help=argparse.SUPPRESS)  # run the timed stage in a child process
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(_time_stage(options.stage)))
        return
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        _run("git", "clone", "--quiet", str(ROOT), str(checkout), cwd=ROOT)
        settings = ["-S", f"source={options.source.resolve()}", "-S", f"epochs={options.epochs}"]
        _run("dvc", "exp", "run", *settings, cwd=checkout)
        idle = min(_time(lambda: _run("dvc", "repro", cwd=checkout)) for _ in range(3))
        command = [sys.executable, __file__, str(options.source), "--stage", str(checkout)]
        printed = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout
    found = json.loads(printed.splitlines()[-1]) | {"dvc_repro_with_nothing_to_do_s": idle, "epochs": options.epochs}
    found["share"] = found["tracking_s"] / found["stage_s"]
    print(
        f"train, {options.epochs} epochs: {found['stage_s']:.1f} s; of this, tracking {found['tracking_s']:.2f} s "
        f"({found['share']:.2%}), including {found['import_s']:.2f} s for the import of MLflow"
    )
    print(f"dvc repro with nothing to do, best of 3: {idle:.2f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def _time_stage(checkout: Path) -> dict[str, float]:
    """Run the stage `train` in ``checkout`` and time every call of the tracking module."""
    sys.path[:0] = [str(checkout / "src"), str(checkout / "stages")]
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{checkout / 'mlflow.db'}"
    import torch  # noqa: F401, PLC0415

    began = time.perf_counter()
    from gender_classifier.track import run as tracking  # noqa: PLC0415

    imported = time.perf_counter() - began
    spent = [imported]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent[0] += time.perf_counter() - began

        return run

    tracking.TrackedRun._send = timed(tracking.TrackedRun._send)  # type: ignore[method-assign]
    tracking._open_run = timed(tracking._open_run)
    import train  # noqa: PLC0415
    from gender_classifier.common.paths import Layout  # noqa: PLC0415
    from gender_classifier.pipeline.params import load_params  # noqa: PLC0415

    layout = Layout(checkout)
    began = time.perf_counter()
    train.main(layout, load_params(layout.params_path))
    return {"stage_s": time.perf_counter() - began + imported, "tracking_s": spent[0], "import_s": imported}


def _time(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _run(*command: str, cwd: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
