"""People's decisions in verify: before duplicates and conflicts are judged, and never on another label than meant."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import draw_pixels, encode, inspect_labelled, picture

from gender_classifier.data.corrections import Correction
from gender_classifier.data.manifest import Record
from gender_classifier.errors import DataError
from gender_classifier.pipeline.params import load_params
from gender_classifier.verify.corrections import Decisions, check_corrections
from gender_classifier.verify.policies import check_fitness, judge
from gender_classifier.verify.quality import QualityTable
from gender_classifier.verify.report import summarize, tell

POLICY = load_params(Path(__file__).parents[2] / "params.yaml").verify
F, M = "Training/female/", "Training/male/"
PATH = Path("data/corrections.csv")


def decide(data: bytes, before: str, after: str, line: int = 2) -> Correction:
    return Correction(hashlib.sha256(data).hexdigest(), "any name", before, after, "2026-01-31T09:30:00Z", line)


def look(members: Mapping[str, bytes], *made: Correction) -> dict[str, Record]:
    records = [inspect_labelled(name, data) for name, data in members.items()]
    corrections = {correction.sha256: correction for correction in made}
    check_corrections(records, corrections, PATH)
    return {record.member: record for record in judge(records, POLICY, corrections)}


def verdict(record: Record) -> tuple[str, str, str]:
    return record.status, record.reason, record.label


def test_labels_change_images_go_and_what_was_right_stays_as_it_was() -> None:
    members = {f"{F}1.jpg": picture(1), f"{F}2.jpg": picture(2), f"{M}3.jpg": picture(3), f"{M}4.jpg": picture(4)}
    plain = look(members)
    found = look(
        members,
        decide(picture(1), "female", "male"),
        decide(picture(2), "female", ""),
        decide(picture(3), "male", "male"),
    )
    assert verdict(found[f"{F}1.jpg"]) == ("ok", "relabelled", "male")
    assert verdict(found[f"{F}2.jpg"]) == ("rejected", "removed", "female")
    assert found[f"{M}3.jpg"] == plain[f"{M}3.jpg"]
    assert found[f"{M}4.jpg"] == plain[f"{M}4.jpg"]
    summary = summarize(list(found.values()))
    assert summary["findings"] == {"relabelled": {"kept": 1}, "removed": {"rejected": 1}}
    assert summary["counts"]["train"]["male"] == {"ok": 3, "rejected": 0}
    assert "relabelled kept 1, removed rejected 1" in tell(list(found.values()), QualityTable({}, {}))


@pytest.mark.parametrize("right", ["female", "male"])
def test_one_decision_settles_a_conflict_of_copies(right: str) -> None:
    """Whichever label the line calls the one before."""
    members = {f"{F}1.jpg": picture(1), f"{M}1.jpg": picture(1)}
    assert {verdict(record)[1] for record in look(members).values()} == {"conflicting_label"}
    for before in ("female", "male"):
        found = look(members, decide(picture(1), before, right))
        kept = [record for record in found.values() if record.status == "ok"]
        assert [record.label for record in kept] == [right]
        assert {record.reason for record in found.values() if record.status == "rejected"} == {"exact_duplicate"}


def test_all_copies_go_and_groups_keep_their_numbers() -> None:
    """Preprocess splits groups by number: a removal must not move other images to another side."""
    grey = encode(draw_pixels(2)[:, :, 0])
    members = {f"{F}1.jpg": picture(1), f"{F}1b.jpg": picture(1), f"{F}2.jpg": grey, f"{F}2b.jpg": grey}
    plain, found = look(members), look(members, decide(picture(1), "female", ""))
    reasons = [found[f"{F}{name}.jpg"].reason for name in ("1", "1b")]
    assert reasons == ["removed", "exact_duplicate"]  # the copy would not be used anyway
    assert [record.duplicate_group for record in found.values()] == [
        record.duplicate_group for record in plain.values()
    ]
    assert found[f"{F}2.jpg"] == plain[f"{F}2.jpg"]


def test_an_image_that_cannot_be_read_keeps_its_own_reason() -> None:
    for after in ("male", ""):
        found = look({f"{F}1.jpg": b"", f"{M}2.jpg": picture(2)}, decide(b"", "female", after))
        assert verdict(found[f"{F}1.jpg"])[:2] == ("rejected", "empty")


def test_removals_by_people_are_no_damage() -> None:
    members = {f"{folder}{n}.jpg": picture(n) for n in range(6) for folder in [F if n % 2 else M]}
    decisions = decide(picture(1), "female", ""), decide(picture(2), "male", "")
    corrections = {decision.sha256: decision for decision in decisions}
    found = look(members, *decisions)
    check_fitness(list(found.values()), POLICY, corrections)
    found[f"{F}3.jpg"] = inspect_labelled(f"{F}3.jpg", b"")
    with pytest.raises(DataError, match="1 of 6 images rejected .16.67%., more than the tolerated 2.00%: 1 empty"):
        check_fitness(list(found.values()), POLICY, corrections)


def test_a_decision_about_another_label_or_an_unknown_class_is_refused_by_its_line() -> None:
    records = [inspect_labelled(f"{F}1.jpg", picture(1)), inspect_labelled(f"{M}2.jpg", picture(2))]
    for correction, message in (
        (
            decide(picture(1), "male", "female", 7),
            "line 7 .'any name'.: label_before is 'male', but the source's label is female",
        ),
        (decide(picture(1), "female", "man", 8), "line 8 .*label_after is 'man', which is no class .* female, male"),
    ):
        with pytest.raises(DataError, match=message):
            check_corrections(records, {correction.sha256: correction}, PATH)


def test_images_of_other_sources_are_counted_and_left_alone() -> None:
    """Their classes may be others: nothing about them is checked."""
    records = [inspect_labelled(f"{F}1.jpg", picture(1)), inspect_labelled(f"{M}2.jpg", picture(2))]
    made = [decide(picture(1), "female", "female"), decide(picture(2), "male", ""), decide(b"other", "cat", "dog")]
    counted = check_corrections(records, {found.sha256: found for found in made}, PATH)
    assert counted == Decisions(relabelled=0, removed=1, kept=1, elsewhere=1)
    assert counted.tell(PATH) == (
        "corrections.csv: labels changed: 0, found right: 1, images removed: 1; images that this source does not hold: 1"
    )
