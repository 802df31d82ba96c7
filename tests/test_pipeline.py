"""dvc.yaml against the code: what a stage uses is what DVC watches."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml
from closure import ROOT, imported_files

from gender_classifier.layout import SPLITS, Layout

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = PIPELINE["stages"]
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())


def paths(entries: list[Any]) -> list[str]:
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def outputs(stage: str) -> set[str]:
    return {path for kind in ("outs", "metrics", "plots") for path in paths(STAGES[stage].get(kind, []))}


def attributes(script: Path, owner: str) -> set[str]:
    """Return the names x read as ``owner.x`` in a script."""
    tree = ast.parse(script.read_text())
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == owner
    }


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_are_the_import_closure(stage: str) -> None:
    script = f"stages/{stage}.py"
    code = {dep for dep in STAGES[stage]["deps"] if dep.startswith(("src/", "stages/"))}
    assert code == imported_files(ROOT / script) | {script}
    assert STAGES[stage]["cmd"] == f"python {script}"


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_the_ones_the_stage_reads(stage: str) -> None:
    top_level = {
        "ingest": {"source"},
        "train": {"epochs", "batch_size", "lr", "weight_decay", "seed"},
    }
    sections = attributes(ROOT / "stages" / f"{stage}.py", "params")
    if stage in ("preprocess", "evaluate"):  # of verify's section, the limit alone
        sections = sections - {"verify"} | {"verify.max_pixels"}
    assert set(STAGES[stage]["params"]) == sections | top_level.get(stage, set())


def test_every_param_is_watched_by_a_stage() -> None:
    watched = {param.split(".")[0] for stage in STAGES.values() for param in stage["params"]}
    assert watched == set(PARAMS)


def layout_paths() -> set[str]:
    layout = Layout(Path())
    plain = {str(getattr(layout, name)) for name in dir(Layout) if isinstance(getattr(Layout, name), property)}
    of_split = {str(path) for split in SPLITS for path in (
        layout.images_path(split), layout.labels_path(split), layout.index_path(split))}  # fmt: skip
    figures = {str(layout.figures_dir(stage)) for stage in STAGES}
    outside = {str(path.relative_to(Path().resolve())) for path in (layout.checkpoints_dir, layout.outbox_dir)}
    plain = {str(Path(path).relative_to(Path().resolve())) if Path(path).is_absolute() else path for path in plain}
    return (plain | of_split | figures) - {"params.yaml", str(layout.processed_dir)} - outside


def test_outputs_are_the_paths_of_layout() -> None:
    declared = set().union(*(outputs(stage) for stage in STAGES))
    assert declared == layout_paths() - {"metrics/figures/ingest"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_the_layout_paths_it_declares(stage: str) -> None:
    """What a script mentions of the layout is exactly its own outputs and data deps."""
    layout = Layout(Path())
    mentioned = attributes(ROOT / "stages" / f"{stage}.py", "layout") - {"root", "params_path", "checkpoints_dir"}
    properties = {str(getattr(layout, name)) for name in mentioned if isinstance(getattr(Layout, name), property)}
    data_deps = {dep for dep in STAGES[stage]["deps"] if not dep.startswith(("src/", "stages/"))}
    declared = outputs(stage) | data_deps
    assert properties <= declared
    assert {path for path in declared if path in {str(getattr(layout, name)) for name in dir(Layout)
            if isinstance(getattr(Layout, name), property)}} == properties  # fmt: skip


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


def test_only_the_modules_of_the_store_import_mlflow() -> None:
    importers = [
        path.name
        for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "stages").glob("*.py")]
        if any(
            name.split(".")[0] == "mlflow"
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            )
        )
    ]  # fmt: skip
    assert sorted(importers) == ["delivery.py", "registry.py", "relocation.py", "store.py", "tracking.py"]
