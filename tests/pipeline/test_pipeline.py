"""dvc.yaml against the code: what a stage uses is what DVC watches."""

import ast
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import ROOT

from gender_classifier.common.paths import Layout, OutputPath
from gender_classifier.data.names import SPLITS
from gender_classifier.pipeline.deps import list_code, write_deps
from gender_classifier.pipeline.watched import UNWATCHED, find_imported, is_unwatched

NAMED = {name for name, value in vars(Layout).items() if isinstance(value, OutputPath)}
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = PIPELINE["stages"]
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())


def paths(entries: list[Any]) -> list[str]:
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def outputs(stage: str) -> set[str]:
    return {path for kind in ("outs", "metrics", "plots") for path in paths(STAGES[stage].get(kind, []))}


def attributes(tree: ast.AST, owner: str) -> set[str]:
    """Return the names x read as ``owner.x``."""
    return {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == owner
    }


def room_files(stage: str) -> list[Path]:
    return [ROOT / "stages" / f"{stage}.py", *sorted((ROOT / "src" / "gender_classifier" / stage).rglob("*.py"))]


def trees(stage: str) -> list[ast.AST]:
    return [ast.parse(path.read_text()) for path in room_files(stage)]


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_are_what_make_deps_writes(stage: str) -> None:
    assert [dep for dep in STAGES[stage]["deps"] if dep.startswith(("src/", "stages/"))] == list_code(stage)
    assert STAGES[stage]["cmd"] == f"python stages/{stage}.py"


def test_make_deps_changes_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "dvc.yaml"
    path.write_text((ROOT / "dvc.yaml").read_text().replace("      - src/gender_classifier/train/trainer.py\n", ""))
    write_deps(path)
    assert path.read_text() == (ROOT / "dvc.yaml").read_text()


def test_what_is_not_watched_exists_and_has_a_reason() -> None:
    assert all(UNWATCHED.values())
    imported = {path.relative_to(ROOT) for stage in STAGES for path in find_imported(ROOT / "stages" / f"{stage}.py")}
    for pattern in UNWATCHED:
        assert any(fnmatch(path.as_posix(), pattern) for path in imported), pattern
    # What writes bytes is never left out.
    for name in ("pipeline/publish.py", "common/files.py", "common/figures.py", "data/images.py", "train/trainer.py"):
        assert not is_unwatched(Path("src/gender_classifier") / name)


def test_an_unwatched_module_is_followed_and_packages_count(tmp_path: Path) -> None:
    for path, text in {
        "stages/a.py": "import gender_classifier.track.run\n",
        "src/gender_classifier/__init__.py": "",
        "src/gender_classifier/track/__init__.py": "",
        "src/gender_classifier/track/run.py": "def f():\n    from gender_classifier.data import images\n",
        "src/gender_classifier/data/__init__.py": "from gender_classifier.data.hidden import X\n",
        "src/gender_classifier/data/hidden.py": "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import gender_classifier.data.types\n",
        "src/gender_classifier/data/images.py": "",
        "src/gender_classifier/data/types.py": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    package = "src/gender_classifier"
    assert list_code("a", tmp_path) == [
        "stages/a.py", f"{package}/__init__.py", f"{package}/data/__init__.py", f"{package}/data/hidden.py",
        f"{package}/data/images.py",
    ]  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_the_ones_the_stage_reads(stage: str) -> None:
    """What a script passes on; ``track`` alone sees all of them, and mirrors them to MLflow."""
    top_level = {"train": {"epochs", "batch_size", "lr", "weight_decay", "seed"}}
    script = ast.parse((ROOT / "stages" / f"{stage}.py").read_text())
    ingest = {"source" if name == "source" else f"ingest.{name}" for name in attributes(script, "params.ingest")}
    parts = {"verify": {f"verify.{name}" for name in attributes(script, "params.verify")}, "ingest": ingest}
    sections = attributes(script, "params")
    expected = set()
    for section in sections:
        whole = section == stage or section not in parts
        expected |= ({section} | top_level.get(section, set())) if whole else parts[section]
    if stage == "ingest":
        expected.add("source")
    if stage == "train":  # the name of the source goes to MLflow alone
        expected.discard("source")
    assert set(STAGES[stage]["params"]) == expected
    for call in ast.walk(script):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "flatten_params":
            assert f"track('{stage}', layout.root, params=flatten_params(params)" in ast.unparse(script)


def test_nothing_but_track_reads_all_params() -> None:
    """Undeclared params in a model card or an ONNX file would be outputs that DVC cannot see change."""
    users = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "src").rglob("*.py")
        if "flatten_params" in path.read_text() or "load_params" in path.read_text()
    }
    assert users == {
        f"src/gender_classifier/pipeline/{name}.py" for name in ("params", "stage", "unchanged", "pretrained")
    }  # `unchanged` compares declared ones alone; the last is no stage


def test_every_param_is_watched_by_a_stage() -> None:
    watched = {param.split(".")[0] for stage in STAGES.values() for param in stage["params"]}
    assert watched == set(PARAMS)


def published(stage: str) -> set[str]:
    """Return the paths of artifacts that a stage's room names."""
    found = set()
    for node in (node for tree in trees(stage) for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Artifact":
            path = node.args[0]
            found.add(path.value if isinstance(path, ast.Constant) else ast.unparse(path.values[0]).strip("'"))
    return {
        path.rpartition("/")[0] if path.startswith(("metrics/figures/", "metrics/sheets/")) else path for path in found
    }


def named(stage: str) -> set[str]:
    """Return the paths of the layout that a stage's script and room name."""
    layout = Layout(Path())
    names = {name for tree in trees(stage) for owner in ("layout", "self") for name in attributes(tree, owner)}
    found = {str(getattr(layout, name)) for name in names if name in NAMED}
    per_split = {"images_path", "labels_path", "index_path"} & names
    splits = {"train": ("train", "val"), "evaluate": ("train", "val", "test")}.get(stage, SPLITS)
    return (found | {str(getattr(layout, name)(split)) for name in per_split for split in splits}) - {"params.yaml"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_files_it_names(stage: str) -> None:
    data_deps = {dep for dep in STAGES[stage]["deps"] if not dep.startswith(("src/", "stages/"))}
    mentioned = named(stage) | published(stage)
    declared = outputs(stage) | data_deps
    assert mentioned <= declared
    assert declared <= mentioned, declared - mentioned


def test_training_does_not_depend_on_the_test_set() -> None:
    assert not [dep for dep in STAGES["train"]["deps"] if "test" in Path(dep).name]
    assert not [dep for dep in STAGES["train"]["deps"] if dep in outputs("evaluate")]


def test_only_evaluation_reads_the_test_arrays() -> None:
    readers = {name for name, stage in STAGES.items() if any("test_images" in dep for dep in stage["deps"])}
    assert readers == {"evaluate"}


def test_plots_are_drawn_from_outputs_and_nothing_is_drawn_twice() -> None:
    declared = set().union(*(outputs(stage) for stage in STAGES))
    stage_plots = set().union(*(set(paths(STAGES[stage].get("plots", []))) for stage in STAGES))
    drawn = {path for plot in PIPELINE["plots"] for options in plot.values() for path in options["y"]}
    assert drawn <= declared
    assert not drawn & stage_plots


def test_the_model_is_a_named_artifact() -> None:
    assert PIPELINE["artifacts"]["gender-classifier"]["path"] == str(Layout(Path()).model_path)
