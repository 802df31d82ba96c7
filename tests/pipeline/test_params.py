"""params.yaml: every slip is refused by name."""

import re
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from hypothesis import given
from hypothesis import strategies as st

from gender_classifier.errors import ParamsError
from gender_classifier.pipeline.params import flatten_params, load_params

PARAMS = Path(__file__).parents[2] / "params.yaml"


def write(folder: Path, **changes: object) -> Path:
    """Write the real params with changes, ``train__lr`` for ``train.lr``; a value of ``...`` removes the key."""
    tree = yaml.safe_load(PARAMS.read_text())
    for dotted, value in changes.items():
        *sections, key = dotted.split("__")
        node = tree
        for section in sections:
            node = node[section]
        if value is ...:
            del node[key]
        else:
            node[key] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def refuse(folder: Path, message: str, **changes: object) -> None:
    with pytest.raises(ParamsError, match=re.escape(message)) as caught:
        load_params(write(folder, **changes))
    assert "\n" not in str(caught.value)


def test_the_real_file_loads_and_flattens_to_every_key() -> None:
    flat = flatten_params(load_params(PARAMS))
    params = load_params(PARAMS)
    assert flat["epochs"] == params.train.epochs == 20
    assert flat["train.augment.flip"] == params.train.augment.flip
    assert flat["source"] == "sample"

    def leaves(tree: dict[str, object], prefix: str = "") -> set[str]:
        found: set[str] = set()
        for key, value in tree.items():
            found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
        return found

    # `none` is read as no limit at all, so it has no key, as empty mappings have none.
    assert set(flat) == leaves(yaml.safe_load(PARAMS.read_text())) - {"evaluate.promotion.max_gap"}


def test_a_mapping_flattens_to_a_key_a_name(tmp_path: Path) -> None:
    path = write(tmp_path, evaluate__extra={"foreign": "data/foreign.csv", "old-2": "x.zip"})
    assert load_params(path).evaluate.extra == {"foreign": "data/foreign.csv", "old-2": "x.zip"}
    flat = flatten_params(load_params(path))
    assert (flat["evaluate.extra.foreign"], flat["evaluate.extra.old-2"]) == ("data/foreign.csv", "x.zip")
    assert "evaluate.extra" not in flat


def test_dvc_can_add_change_and_remove_a_further_set(tmp_path: Path) -> None:
    """As ``dvc exp run -S`` does; with a comment behind ``extra: {}`` the last removal would leave no valid YAML."""
    path = write(tmp_path)
    path.write_text(PARAMS.read_text())
    for override, expected in (
        ("+evaluate.extra.foreign=a/b.csv", {"foreign": "a/b.csv"}),
        ("evaluate.extra.foreign=c.zip", {"foreign": "c.zip"}),
        ("~evaluate.extra.foreign", {}),
    ):
        apply_overrides(path, [override])
        assert load_params(path).evaluate.extra == expected


def test_dvc_can_set_change_and_remove_the_limit_of_a_gap(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(PARAMS.read_text())
    for overrides, expected in (
        (["+evaluate.extra.utk=a.csv", "evaluate.promotion.max_gap={utk: 1e-5}"], {"utk": 1e-5}),
        (["evaluate.promotion.max_gap={utk: 0.02}"], {"utk": 0.02}),
        (["evaluate.promotion.max_gap=none"], {}),
    ):
        apply_overrides(path, overrides)
        assert load_params(path).evaluate.promotion.max_gap == expected


def test_dvc_can_choose_the_flags_that_reject(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(PARAMS.read_text())
    for text, expected in (("[too_dark,blurred]", ("too_dark", "blurred")), ("[blurred]", ("blurred",)), ("[]", ())):
        apply_overrides(path, [f"verify.quality.reject={text}"])
        assert load_params(path).verify.quality.reject == expected


@pytest.mark.parametrize("text", ["1e-05", "1E-5", ".5", "1.", "2"])
def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(r"^lr: .*$", f"lr: {text}", PARAMS.read_text(), flags=re.MULTILINE))
    lr = load_params(path).train.lr
    assert isinstance(lr, float)
    assert lr == float(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "`epochs` is int 0, out of range; it must be at least 1"),
        ({"epochs": "abc"}, "`epochs` is str 'abc'; it must be a whole number"),
        ({"epochs": 2.5}, "`epochs` is float 2.5; it must be a whole number"),
        ({"epochs": True}, "`epochs` is bool True; it must be a whole number"),
        ({"lr": 0}, "`lr` is int 0, out of range; it must be above 0"),
        ({"lr": "fast"}, "`lr` is str 'fast'; it must be a number"),
        ({"lr": float("nan")}, "`lr` is float nan, out of range"),
        ({"weight_decay": float("inf")}, "`weight_decay` is float inf, out of range"),
        ({"epoch": 3}, "unknown key `epoch`; did you mean `epochs`?"),
        ({"train__optimiser": "adam"}, "unknown key `train.optimiser`; did you mean `train.optimizer`?"),
        ({"train__augment__flop": 1}, "unknown key `train.augment.flop`; did you mean `train.augment.flip`?"),
        ({"train__optimizer": "adamm"}, "`train.optimizer` is str 'adamm'; choose one of adam, adamw, sgd"),
        ({"train__augment": 3}, "`train.augment` is int 3, not a section"),
        ({"train__head": ...}, "key `train.head` is missing"),
        ({"epochs": ...}, "key `epochs` is missing"),
        ({"verify": ...}, "section `verify` is missing"),
        ({"verify": [1]}, "`verify` is list [1], not a section"),
        ({"source": None}, "`source` is empty; it must be text"),
        ({"source": " "}, "`source` is str ' '; it must be text"),
        ({"preprocess__val_fraction": 0.0}, "`preprocess.val_fraction` is float 0.0, out of range"),
        ({"evaluate__extra": ["faces"]}, "`evaluate.extra` is list ['faces'], not names with their texts; write {}"),
        ({"evaluate__extra": None}, "`evaluate.extra` is empty, not names with their texts"),
        ({"evaluate__extra": {"a/b": "x"}}, "`evaluate.extra` has the name str 'a/b'; a name is up to 40 letters"),
        ({"evaluate__extra": {1: "x"}}, "`evaluate.extra` has the name int 1"),
        ({"evaluate__extra": {"foreign": None}}, "`evaluate.extra.foreign` is empty; it must be text"),
        ({"evaluate__extra": {"foreign": {"path": "x"}}}, "`evaluate.extra.foreign` is dict {'path': 'x'}; it must be"),
        ({"ingest__classes": "female"}, "`ingest.classes` is str 'female'; write auto, or a mapping such as {child:"),
        ({"ingest__classes": {"a": ["x"]}}, "`ingest.classes` is dict {'a': ['x']}; it must have at least two classes"),
        ({"ingest__classes": {"a": "x", "b": ["x"]}}, "it must have at least two classes, each with names, and each"),
        ({"ingest__classes": {"a": "x", "b": []}}, "it must have at least two classes, each with names"),
        ({"ingest__classes": {"a": "x", False: "no"}}, "; it holds bool False, not a name; put names in quotes"),
        ({"ingest__columns": {"person": "x"}}, "write {}, or headers by their role: path, label, split, group"),
        ({"ingest__columns": {"path": 1}}, "it holds int 1, not a header; put headers in quotes"),
        ({"ingest__columns": {"path": "x", "label": "x"}}, "it names a header twice; a column has one role"),
        (
            {"ingest__format": "csv"},
            "`ingest.format` is str 'csv'; choose one of auto, folders, table, celeba, fairface",
        ),
        (
            {"verify__quality__reject": ["dark"]},
            "`verify.quality.reject` is list ['dark']; write a list, [] or some of too",
        ),
        ({"verify__quality__reject": "blurred"}, "`verify.quality.reject` is str 'blurred'; write a list"),
        (
            {"verify__quality__min_entropy": 9},
            "`verify.quality.min_entropy` is int 9, out of range; it must be at least 0",
        ),
        ({"evaluate__promotion__max_gap": 0.02}, "`evaluate.promotion.max_gap` is float 0.02; write none, or sets of"),
        ({"evaluate__promotion__max_gap": None}, "`evaluate.promotion.max_gap` is empty; write none, or sets of"),
        (
            {"evaluate__promotion__max_gap": {"utk": 2}},
            "`evaluate.promotion.max_gap.utk` is int 2, out of range; it must",
        ),
        (
            {"evaluate__promotion__max_gap": {"utk": "x"}},
            "`evaluate.promotion.max_gap.utk` is str 'x'; it must be a number",
        ),
        (
            {"evaluate__promotion__max_gap": {"utk": 0.1}},
            "`evaluate.promotion.max_gap` names the set 'utk', which is not in `evaluate.extra` (no sets); add its path",
        ),
        ({"preprocess__test_fraction": 0.6}, "`preprocess.test_fraction` is float 0.6, out of range"),
        ({"preprocess__image_size": 32}, "`preprocess.image_size` is int 32, out of range; it must be at least 63"),
    ],
)
def test_slips_are_refused_by_name(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    refuse(tmp_path, message, **changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "not valid YAML"), ("just text", "holds str 'just text'"), ("", "holds empty"), ("\xff", "holds str")],
)
def test_files_that_are_no_params(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError, match=message):
        load_params(path)


def test_missing_and_undecodable_files(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ParamsError, match="cannot be read"):
        load_params(tmp_path / "params.yaml")


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([])


@given(key=st.sampled_from(sorted(flatten_params(load_params(PARAMS)))), value=LEAF)
def test_any_value_is_taken_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    path = write(tmp_path_factory.mktemp("p"), **{key.replace(".", "__"): value})
    try:
        load_params(path)
    except ParamsError as error:
        assert key in str(error)
        assert "\n" not in str(error)


def test_a_mapping_of_classes_is_one_text(tmp_path: Path) -> None:
    """Names of classes may hold characters that no key in MLflow may."""
    for override, expected in (
        ("ingest.classes={old: [60+, 'a: b'], young: 0}", '{"old": ["60+", "a: b"], "young": ["0"]}'),
        ("ingest.classes=auto", "auto"),
    ):
        path = write(tmp_path)
        apply_overrides(path, [override])
        assert flatten_params(load_params(path))["ingest.classes"] == expected
