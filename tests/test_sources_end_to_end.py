"""Every form of labelled faces goes all the way, from `ingest` to a registered model, with the right label on each image.

The sets are made up. Their images are drawn, but for UTKFace's form: real faces under made-up names, ages and races.
"""

import csv
import io
import json
import shutil
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from checkout import ROOT
from conftest import client
from PIL import Image
from test_stages import STAGES, run

from gender_classifier.data.archive import Archive
from gender_classifier.data.corrections import write_corrections
from gender_classifier.ingest.sample import draw_sample
from gender_classifier.metrics.scores import as_key
from gender_classifier.predict.predictor import Predictor

pytestmark = pytest.mark.slow

FACES = ROOT.parent / "shared" / "data" / "faces-12k.zip"
COUNT = 120  # images a class

Files = dict[str, bytes]
Faces = list[tuple[str, bytes]]
"""Label and content of each image: female and male in turn, and two of the first female's, saved again, at the end."""


@dataclass(frozen=True)
class Form:
    """A made-up set: its files, and what must come of it.

    Attributes:
        write: from the faces.
        names: what ``female`` and ``male`` become.
        attributes: names.
        gap: whether two groups are large enough for one.
        zipped: or a folder.
        path: of the source below the folder or zip.
        real: of real faces.
    """

    write: Callable[[Faces], Files]
    names: tuple[str, str] = ("female", "male")
    attributes: tuple[str, ...] = ()
    gap: bool = False
    zipped: bool = True
    path: str = ""
    real: bool = False


def split_of(n: int, *names: str) -> str:
    """Return the split of an image: the first, train, of a half, the last of the others; the one between of a few."""
    return names[0] if n % 4 < 2 else names[1] if n % 8 < 4 and n < COUNT // 2 else names[-1]


def write_splits(faces: Faces) -> Files:
    return {
        f"my faces/{split_of(n, 'TRAIN', 'valid', 'Testing')}/{'Women' if label == 'female' else 'M'}/é{n} #{n}%.JPG": data
        for n, (label, data) in enumerate(faces)
    }


def write_folders(faces: Faces) -> Files:
    return {f"{label[0]}/album {n % 3}/deep/{n // 2}.jpg": data for n, (label, data) in enumerate(faces)}


def write_table(faces: Faces, sep: str, header: str, values: tuple[str, str]) -> tuple[str, Files]:
    """Return a table, and the images in folders that say the opposite of its labels."""
    files = {f"{'male' if label == 'female' else 'female'}/{n}.jpg": data for n, (label, data) in enumerate(faces)}
    lines = [header.replace(",", sep)]
    for n, (name, (label, _)) in enumerate(zip(files, faces, strict=True)):
        lines.append(sep.join((name, values[label == "male"], f"person {n // 4}", "old" if n % 4 > 1 else "young")))
    return "\ufeff" + "\r\n".join(lines), files


def write_csv(faces: Faces) -> Files:
    table, files = write_table(faces, ";", "Filename,sex,group,age", ("F", "m"))
    return {f"images/{name}": data for name, data in files.items()} | {"labels.csv": table.encode()}


def write_tsv(faces: Faces) -> Files:
    table, files = write_table(faces, "\t", "path,label,group,age", ("60+", "under 60: y/n"))
    return files | {"labels.tsv": table.encode()}


def write_celeba(faces: Faces) -> Files:
    names = [f"{n:06}.jpg" for n in range(1, len(faces) + 1)]
    attributes = [
        f"{name}  {'-1' if n % 4 > 1 else ' 1'}  {' 1' if label == 'male' else '-1'} -1"
        for n, (name, (label, _)) in enumerate(zip(names, faces, strict=True))
    ]
    splits = [f"{name} {split_of(n, '0', '1', '2')}" for n, name in enumerate(names)]
    # Two images a person; the first of the second is another's, so that a person is in train and test.
    people = [f"{name} {7 if n in (4, 7) else 1000 + n // 2}" for n, name in enumerate(names)]
    tables = {
        "list_attr_celeba.txt": [str(len(names)), "Smiling Male Young", *attributes],
        "list_eval_partition.txt": splits,
        "identity_CelebA.txt": people,
    }
    images = {f"img_align_celeba/{name}": data for name, (_, data) in zip(names, faces, strict=True)}
    return images | {name: "\n".join(lines).encode() for name, lines in tables.items()}


def write_fairface(faces: Faces) -> Files:
    files, tables = Files(), defaultdict[str, list[str]](lambda: ["file,age,gender,race,service_test"])
    for n, (label, data) in enumerate(faces):
        split = split_of(n, "train", "val")
        name = f"{split}/{len(tables[split])}.jpg"
        files[name] = data
        tables[split].append(f"{name},{('3-9', 'more than 70')[n % 8 > 3]},{label.title()},Black,{n % 3 == 0}")
    return files | {f"fairface_label_{split}.csv": "\n".join(rows).encode() for split, rows in tables.items()}


def write_utkface(faces: Faces) -> Files:
    def name(n: int, label: str) -> str:
        race = "" if n == 5 else f"_{n % 4 // 2}"
        return f"UTKFace/{20 + n % 60}_{int(label == 'female')}{race}_20170109142408{n:03}.jpg.chip.jpg"

    return {name(n, label): data for n, (label, data) in enumerate(faces)}


FORMS = {
    "three splits": Form(write_splits),
    "no splits": Form(write_folders, zipped=False),
    "CSV": Form(write_csv, attributes=("age",), gap=True, zipped=False),
    "TSV": Form(write_tsv, names=("60+", "under 60: y/n"), attributes=("age",), gap=True, path="/labels.tsv"),
    "CelebA": Form(write_celeba, attributes=("Smiling", "Young")),
    "FairFace": Form(write_fairface, attributes=("age", "race", "service_test"), gap=True),
    "UTKFace": Form(write_utkface, attributes=("age_group", "race"), zipped=False, real=True),
}


@pytest.fixture(scope="module")
def drawn() -> Faces:
    found = [(member.split("/")[1], data) for member, data in draw_sample(0, num_train=2 * COUNT + 12, num_val=8)]
    return mix([data for label, data in found if label == "female"], [data for label, data in found if label == "male"])


def mix(female: list[bytes], male: list[bytes]) -> Faces:
    """Return the first images of each class in turn; faults are at the end of the drawn ones."""
    pairs = zip(female[:COUNT], male[:COUNT], strict=True)
    faces = [face for woman, man in pairs for face in (("female", woman), ("male", man))]
    copies = []
    for quality in (60, 70):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(female[0])).save(buffer, "JPEG", quality=quality)
        copies.append(("female", buffer.getvalue()))
    return faces + copies


def real_faces() -> Faces:
    with Archive(FACES) as archive:
        found = {
            label: [archive.read(name) for name in archive.members if name.startswith(f"Training/{label}/")][:COUNT]
            for label in ("female", "male")
        }
    return mix(found["female"], found["male"])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", FORMS)
def test_a_form_goes_all_the_way(name: str, drawn: Faces, tmp_path: Path, empty_store: Path) -> None:
    form = FORMS[name]
    if form.real and not FACES.is_file():
        pytest.skip(f"{FACES.name} with real faces is not beside the checkout")
    faces = real_faces() if form.real else drawn
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    write_params(tmp_path, write_source(tmp_path, form, faces))
    write_corrections(tmp_path / "data/corrections.csv", [])
    for stage in STAGES:
        run(stage, tmp_path)

    labels = {sha256(data).hexdigest(): form.names[label == "male"] for label, data in faces}
    rows = read(tmp_path / "data/processed/images.csv")
    assert {row["sha256"]: row["label"] for row in rows}.items() <= labels.items()
    assert len(rows) >= len(faces) - 4  # those that would be on two sides
    sides, copies = defaultdict[str, set[str]](set), set[str]()
    for row in rows:
        sides[row["group"]].add(row["split"])
        if row["sha256"] in {sha256(faces[place][1]).hexdigest() for place in (0, -2, -1)}:
            copies.add(row["group"])
    assert len(copies) == 1
    assert copies != {""}
    assert all(len(found) == 1 for group, found in sides.items() if group)

    test = {row["path"]: row for row in rows if row["split"] == "test"}
    predicted = {row["member"]: row["actual"] for row in read(tmp_path / "data/predictions/test.csv")}
    assert predicted == {path: row["label"] for path, row in test.items()}
    found = {(row["attribute"], row["value"]): int(row["n"]) for row in read(tmp_path / "metrics/test_attributes.csv")}
    expected = Counter((key, row[key] or "(empty)") for row in test.values() for key in form.attributes)
    assert {key: n for key, n in found.items() if key[0] in form.attributes} == expected
    assert found.get(("all", ""), 0) == (len(test) if form.attributes else 0)

    metrics = json.loads((tmp_path / "metrics/evaluate.json").read_text())["test"]
    assert ("group_gap" in metrics) == form.gap
    figures = {path.name for path in (tmp_path / "metrics/figures/evaluate").glob("test_*.png")} - {
        "test_confusion.png"
    }
    expected_figures = {"test_attributes.png": bool(form.attributes), "test_groups.png": form.gap}
    assert figures == {figure for figure, drawn in expected_figures.items() if drawn}

    predictor = Predictor(tmp_path / "models/model.onnx")
    assert tuple(predictor.classes) == form.names
    (version,) = client(tmp_path).search_model_versions("name='gender-classifier'")
    logged = client(tmp_path).get_run(version.run_id).data
    assert len(logged.metrics) <= 40
    assert logged.metrics[f"test/recall_{as_key(form.names[0])}"] == pytest.approx(metrics[f"recall_{form.names[0]}"])
    assert ("test.worst_group" in logged.tags) == ("test/group_gap" in logged.metrics) == form.gap


def write_source(folder: Path, form: Form, faces: Faces) -> str:
    files = form.write(faces)
    if form.zipped:
        with zipfile.ZipFile(folder / "set.zip", "w") as archive:
            for path, data in files.items():
                archive.writestr(path, data)
        return f"set.zip{form.path}"
    for path, data in files.items():
        (folder / "set" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "set" / path).write_bytes(data)
    return f"set{form.path}"


def write_params(folder: Path, source: str) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params |= {"source": source, "epochs": 1, "batch_size": 32}
    params["preprocess"] |= {"test_fraction": 0.5, "val_fraction": 0.2}
    params["evaluate"]["robustness_images"] = 0
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
