"""Code dependencies of each stage in ``dvc.yaml``, written by ``make deps``."""

from pathlib import Path

from ruamel.yaml import YAML

from gender_classifier.common.files import replacing
from gender_classifier.pipeline.watched import ROOT, find_watched


def list_code(stage: str, root: Path = ROOT) -> list[str]:
    """Return a stage's watched files, relative to the checkout, as listed in ``dvc.yaml``."""
    return [path.relative_to(root).as_posix() for path in find_watched(stage, root)]


def write_deps(path: Path, root: Path = ROOT) -> None:
    """Replace the code deps of every stage in ``dvc.yaml``; data deps, comments and order are kept."""
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    pipeline = yaml.load(path)
    for name, stage in pipeline["stages"].items():
        data = [dep for dep in stage["deps"] if not dep.startswith(("src/", "stages/"))]
        stage["deps"][:] = [*data, *list_code(name, root)]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump(pipeline, file)


if __name__ == "__main__":
    write_deps(ROOT / "dvc.yaml")
