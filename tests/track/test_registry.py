"""Versions, aliases, reasons and the way back, on a real SQLite store; and the commands for doing it by hand."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import mlflow.pyfunc
import numpy as np
import onnx
import pytest
import torch
from conftest import client
from PIL import Image

from gender_classifier.cli.main import main
from gender_classifier.data.dataset import tag_corrections
from gender_classifier.errors import TrackingError
from gender_classifier.evaluate.export import compute_outputs, compute_probs, export_onnx
from gender_classifier.evaluate.params import PromotionParams
from gender_classifier.model.model_file import ModelSpec
from gender_classifier.model.network import build_model
from gender_classifier.model.unfamiliarity import fit_unfamiliarity
from gender_classifier.predict.predictor import Predictor
from gender_classifier.track.model_source import find_model
from gender_classifier.track.registration import register_model
from gender_classifier.track.registry import REGISTERED_MODEL, promote, rollback, settle_champion
from gender_classifier.track.run import track

RULE = PromotionParams(metric="val/kept_accuracy", min_gain=0.001, min_accuracy=0.9, max_gap="none")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    torch.manual_seed(0)
    spec = ModelSpec("linear", ("female", "male"), 64, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
    network = build_model("linear", 2, 64).eval()
    unfamiliarity = fit_unfamiliarity(network, spec, np.repeat(IMAGES, 2, axis=0), IMAGES)
    export_onnx(path, network, spec, {"metrics": "{}"}, unfamiliarity)
    return path


def register(
    root: Path,
    onnx_path: Path,
    accuracy: float,
    *,
    digest: str = "a",
    network: str = "",
    figures: str = "{}",
    corrections: Mapping[str, int] = MappingProxyType({}),
    gap: float | None = None,
    rule: PromotionParams = RULE,
    resume: str | None = None,
) -> tuple[str, str]:
    """Register one version as `evaluate` does, by default another model each; return it, and what became of it."""
    model = onnx.load(str(onnx_path))
    model.graph.doc_string = network or f"{accuracy} on {digest}"
    next(entry for entry in model.metadata_props if entry.key == "metrics").value = figures
    onnx_path = root / "model.onnx"
    onnx.save(model, str(onnx_path))
    card = root / "model_card.md"
    card.write_text(f"# Model card\n\naccuracy {accuracy}\n")
    with track("evaluate", root, params={}, resume=resume) as run:
        version = register_model(
            run.client,
            run.run_id,
            onnx_path,
            name="alexnet-repro",
            image_size=64,
            num_classes=2,
            metrics={"val/kept_accuracy": accuracy, "test/accuracy": accuracy}
            | ({} if gap is None else {"extra/utk-2/group_gap": gap}),
            tags={
                "data.digest": digest,
                "val.digest": digest,
                "test.digest": digest,
                "dvc.exp": "",
                "git.commit": "c",
                **{key: str(count) for key, count in tag_corrections(corrections).items()},
                **({} if gap is None else {"extra.utk-2.digest": "u"}),
            },
            card=card,
        )
        decision = settle_champion(run.client, version, rule)
    return version, decision.reason


def champion(root: Path) -> str:
    return str(client(root).get_model_version_by_alias(REGISTERED_MODEL, "champion").version)


def test_a_registered_version_is_served_as_its_file_is(
    root: Path, onnx_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    version, _ = register(root, onnx_path, 0.95)
    for name in ("gender-classifier@champion", f"gender-classifier/{version}"):
        with find_model(f"models:/{name}", root) as found:
            predictor = Predictor(found.path)
        np.testing.assert_allclose(predictor.compute_probs(IMAGES), compute_probs(onnx_path, IMAGES), atol=1e-6)
        assert predictor.classes == ("female", "male")
    Image.fromarray(IMAGES[0]).save("a.png")
    assert main(["predict", "a.png", "--model", "models:/gender-classifier@champion"]) == 0
    assert "a.png" in capsys.readouterr().out
    for name in ("gender-classifier@none", "gender-classifier/99", "other/1", "gender-classifier"):
        assert main(["predict", "a.png", "--model", f"models:/{name}"]) == 1
        err = capsys.readouterr().err
        assert err.startswith("gender-classifier predict: error: ")
        assert err.count("\n") == 1
        assert name.partition("@")[0].partition("/")[0] in err


def test_a_version_of_corrected_labels_is_not_compared_and_says_so(root: Path, onnx_path: Path) -> None:
    register(root, onnx_path, 0.93)
    version, reason = register(root, onnx_path, 0.99, digest="b", corrections={"val": 3, "train": 9})
    assert reason == (
        "not promoted: labels of val were corrected (3; of version 1's: 0), so their figures do not compare; compare "
        f"the two by hand, then: gender-classifier promote {version}"
    )
    assert champion(root) == "1"
    promote(client(root), version, "the labels are right now")
    _, reason = register(root, onnx_path, 0.995, digest="b", corrections={"val": 3, "train": 12})
    assert reason.startswith("promoted: val/kept_accuracy 0.9950 against 0.9900 of version 2")


def test_aliases_move_as_the_rule_says_and_back_by_hand(
    root: Path, onnx_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(TrackingError, match="has no champion yet"):
        rollback(client(root), "why not")
    outcomes = [register(root, onnx_path, accuracy) for accuracy in (0.8, 0.93, 0.95, 0.9505)]
    outcomes.append(register(root, onnx_path, 0.99, digest="other"))
    assert [version for version, _ in outcomes] == ["1", "2", "3", "4", "5"]
    assert [reason.split(":")[0] for _, reason in outcomes] == [
        "not promoted", "promoted", "promoted", "not promoted", "not promoted"]  # fmt: skip
    assert champion(root) == "3"
    for version, reason in outcomes:
        found = client(root).get_model_version(REGISTERED_MODEL, version)
        assert found.tags["promotion"] == reason
        assert found.description.startswith("# Model card")
        assert "dvc.exp" not in found.tags  # no empty tag
    assert str(client(root).get_model_version_by_alias(REGISTERED_MODEL, "challenger").version) == "5"

    assert main(["promote", "5", "--reason", "fairer data"]) == 0
    refusal, _, advice = outcomes[4][1].partition("; compare")
    assert advice
    assert capsys.readouterr().out == (
        f"champion: version 5, before it version 3\nthe rule of evaluate.promotion had said: {refusal}\n"
    )
    assert champion(root) == "5"
    tags = client(root).get_model_version(REGISTERED_MODEL, "5").tags
    assert (tags["promotion"], tags["promotion.rule"]) == ("promoted by hand: fairer data", outcomes[4][1])
    assert main(["promote", "5", "--reason", "once more"]) == 0
    assert capsys.readouterr().out == "champion: version 5, as before\n"
    assert client(root).get_model_version(REGISTERED_MODEL, "5").tags["promotion"] == tags["promotion"]
    for expected in ("3", "2"):
        lost = champion(root)
        assert main(["rollback", "--reason", "it fails in the dark"]) == 0
        assert capsys.readouterr().out == f"champion: version {expected}, taken from version {lost}\n"
        assert champion(root) == expected
        tags = client(root).get_model_version(REGISTERED_MODEL, lost).tags
        assert tags["promotion"] == "rolled back: it fails in the dark"
    assert main(["rollback"]) == 1
    assert (
        "version 2 is the first champion of gender-classifier; there is nothing to go back to"
        in capsys.readouterr().err
    )
    # What the rule said outlives the rollback.
    assert main(["promote", "5"]) == 0
    assert f"had said: {refusal}\n" in capsys.readouterr().out
    for text in ("17", "best", "05", " 5", "５", "9" * 20):
        assert main(["promote", text]) == 1
        message = f"version {text} of gender-classifier: no such version; there are: 5, 4, 3, 2, 1"
        assert message in capsys.readouterr().err
    assert champion(root) == "5"


def test_a_gap_is_stored_with_the_version_and_keeps_one_with_a_wider_gap_from_the_top(
    root: Path, onnx_path: Path
) -> None:
    fair = replace(RULE, max_gap={"utk-2": 0.02})
    register(root, onnx_path, 0.94)  # before the set was evaluated
    _, reason = register(root, onnx_path, 0.95, gap=0.05, rule=fair)
    assert reason.startswith("not promoted: version 1 has no gap on utk-2 to compare with")
    promote(client(root), "2", "its gap is small")
    _, reason = register(root, onnx_path, 0.97, gap=0.0901234567, rule=fair)
    assert reason == (
        "not promoted: the gap between groups on utk-2 is 0.0901 against 0.0500 of version 2, wider by 0.0401; "
        "0.02 is allowed"
    )
    tags = client(root).get_model_version(REGISTERED_MODEL, "3").tags
    assert (tags["extra/utk-2/group_gap"], tags["extra.utk-2.digest"], tags["promotion"]) == ("0.0901235", "u", reason)
    assert champion(root) == "2"
    assert register(root, onnx_path, 0.96, gap=0.06, rule=fair)[1].startswith("promoted: val/kept_accuracy 0.9600")
    assert champion(root) == "4"


def test_a_model_that_is_evaluated_again_keeps_its_version_and_gets_its_new_figures(
    root: Path, onnx_path: Path
) -> None:
    assert register(root, onnx_path, 0.95, network="same") == (
        "1",
        "promoted: the first, with val/kept_accuracy 0.9500",
    )
    register(root, onnx_path, 0.93, network="other")
    again = register(root, onnx_path, 0.951234567, network="same", figures='{"ece": 0.1}')
    assert again == ("1", "champion already, promoted: the first, with val/kept_accuracy 0.9500")
    store = client(root)
    found = store.get_model_version(REGISTERED_MODEL, "1")
    assert found.tags["val/kept_accuracy"] == "0.951235"
    assert found.tags["promotion"] == "promoted: the first, with val/kept_accuracy 0.9500"
    assert "accuracy 0.951234567" in found.description
    with find_model("models:/gender-classifier@challenger", root) as renewed:
        assert renewed.registry_version == "1"
        assert Predictor(renewed.path).metadata["metrics"] == '{"ece": 0.1}'
    assert len(store.search_model_versions(f"name='{REGISTERED_MODEL}'")) == 2
    # The run that evaluated it again is linked to the logged model it found.
    experiment_ids = [store.get_experiment_by_name("gender-classifier").experiment_id]
    runs = sorted(store.search_runs(experiment_ids), key=lambda run: run.info.start_time)
    # A run may be evaluated any number of times: `dvc repro -f evaluate`.
    for run in (runs[0], runs[2]):
        assert register(root, onnx_path, 0.96, network="same", resume=run.info.run_id)[0] == "1"
    runs = sorted(store.search_runs(experiment_ids), key=lambda run: run.info.start_time)
    models = [[output.model_id for output in run.outputs.model_outputs] for run in runs]
    assert models[2] == models[0] == [found.source.removeprefix("models:/")]
    assert models[1] != models[0]
    names = {model.name for model in store.search_logged_models([runs[0].info.experiment_id])}
    assert names == {"alexnet-repro"}


def test_a_version_that_was_rolled_back_is_not_promoted_by_evaluating_it_again(root: Path, onnx_path: Path) -> None:
    register(root, onnx_path, 0.92, network="first")
    register(root, onnx_path, 0.95, network="second")
    rollback(client(root), "fails in the dark")
    assert register(root, onnx_path, 0.95, network="second") == ("2", "not promoted: rolled back: fails in the dark")
    assert champion(root) == "1"


def test_a_champion_of_an_earlier_version_is_compared_by_its_old_tags(root: Path, onnx_path: Path) -> None:
    version, _ = register(root, onnx_path, 0.95)
    client(root).delete_model_version_tag(REGISTERED_MODEL, version, "val/kept_accuracy")
    client(root).set_model_version_tag(REGISTERED_MODEL, version, "best_val_accuracy", "0.95")
    _, reason = register(root, onnx_path, 0.96)
    assert reason == "promoted: val/kept_accuracy 0.9600 against 0.9500 of version 1, a gain of +0.0100"


def test_rolling_back_steps_over_deleted_versions(root: Path, onnx_path: Path) -> None:
    for accuracy in (0.91, 0.92, 0.93):
        register(root, onnx_path, accuracy)
    client(root).delete_model_version(REGISTERED_MODEL, "2")
    assert rollback(client(root), "") == ("3", "1")
    # Promoted again, it is the newest in the history once.
    assert promote(client(root), "3", "") == ("1", "")
    assert rollback(client(root), "") == ("3", "1")


def test_a_champion_whose_version_was_deleted_leaves_the_place_free(root: Path, onnx_path: Path) -> None:
    register(root, onnx_path, 0.95)
    client(root).delete_model_version(REGISTERED_MODEL, "1")
    _, reason = register(root, onnx_path, 0.92)
    assert reason == "promoted: the first, with val/kept_accuracy 0.9200"
    with pytest.raises(TrackingError, match="nothing to go back to"):
        rollback(client(root), "")


def test_after_the_champion_was_deleted_the_last_one_left_counts(
    root: Path, onnx_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    for accuracy in (0.91, 0.93, 0.95):
        register(root, onnx_path, accuracy)
    client(root).delete_model_version(REGISTERED_MODEL, "3")
    version, reason = register(root, onnx_path, 0.92)
    assert (version, reason.split(";")[0]) == (
        "4", "not promoted: val/kept_accuracy 0.9200 against 0.9300 of version 2, a gain of -0.0100")  # fmt: skip
    assert main(["rollback"]) == 0
    assert capsys.readouterr().out == "champion: version 2, taken from version 3\n"
    assert champion(root) == "2"


def test_a_version_is_loaded_without_unpickling_and_predicts_the_same(
    root: Path, onnx_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, _ = register(root, onnx_path, 0.95)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads"):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    for alias in ("champion", "challenger"):
        model = mlflow.pyfunc.load_model(f"models:/{REGISTERED_MODEL}@{alias}")
        answer = model.predict(IMAGES)
        probs, unfamiliarity = compute_outputs(onnx_path, IMAGES)
        np.testing.assert_allclose(answer["probs"], probs, atol=1e-6)
        np.testing.assert_allclose(answer["unfamiliarity"], unfamiliarity, rtol=1e-4)
        assert model.metadata.signature.outputs.input_names() == ["probs", "unfamiliarity"]
    files = {path.name for path in (root / "mlartifacts").rglob("*") if path.is_file()}
    assert "model.onnx" in files
    assert not {name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth"))}
    found = client(root).get_model_version(REGISTERED_MODEL, version)
    listed = client(root).list_logged_model_artifacts(found.source.removeprefix("models:/"))
    assert "model_card.md" in {item.path for item in listed}


def test_without_a_store_the_commands_say_so_and_make_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    outside = (
        f"{tmp_path}/docs: no project here (no dvc.yaml in this folder or above it); run from the project's folder"
    )
    new = f"{tmp_path}/mlflow.db: no such store; run `dvc repro` to make it"
    (tmp_path / "a.png").write_bytes(b"")
    model = ["predict", "../a.png", "--model", "models:/gender-classifier@champion"]
    for expected, commands in (
        (outside, (["ui"], ["sync"], ["promote", "1"], ["rollback"], model)),
        (new, (["sync"], ["promote", "1"], ["rollback"], model)),
    ):
        for arguments in commands:
            assert main(arguments) == 1
            out, errors = capsys.readouterr()
            assert out == ""
            assert errors == f"gender-classifier {arguments[0]}: error: {expected}, or set MLFLOW_TRACKING_URI\n"
        (tmp_path / "dvc.yaml").touch()
    assert {path.name for path in tmp_path.rglob("*")} == {"docs", "a.png", "dvc.yaml"}


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["demote"])
    assert caught.value.code == 2
    assert "sync, ui, promote, rollback" in " ".join(capsys.readouterr().err.replace("'", "").split())


def test_a_registry_without_the_model_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    assert main(["promote", "1"]) == 1
    assert "no such version; there are: none" in capsys.readouterr().err


def test_nothing_of_this_machine_is_told_with_a_model(
    root: Path, onnx_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "https://you:secret-token@example.org/faces.git"
    monkeypatch.setattr("gender_classifier.track.registration.get_git_repo_url", lambda _: address)
    monkeypatch.setattr("mlflow.tracking.context.git_context.get_git_repo_url", lambda _: address)
    monkeypatch.setattr("sys.argv", ["/home/somebody/faces/stages/evaluate.py"])
    version, _ = register(root, onnx_path, 0.95)
    found = client(root).get_model_version(REGISTERED_MODEL, version)
    tags = client(root).get_logged_model(found.source.removeprefix("models:/")).tags
    assert tags["mlflow.source.name"] == "stages/evaluate.py"
    assert tags["mlflow.source.git.repoURL"] == "https://example.org/faces.git"
    assert not [value for value in (*tags.values(), *found.tags.values()) if "secret" in value or "/home/" in value]
