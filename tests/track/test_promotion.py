"""The rule that moves `champion`: better, good enough, and measured on the very same images."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gender_classifier.evaluate.params import PromotionParams
from gender_classifier.track.promotion import Contender, Gap, decide

RULE = PromotionParams(metric="val/kept_accuracy", min_gain=0.001, min_accuracy=0.9, max_gap="none")
DIGESTS = {"val": "a", "test": "b"}


def contender(version: str, accuracy: float, **more: float) -> Contender:
    return Contender(version, {"val/kept_accuracy": accuracy, "test/accuracy": accuracy, **more}, DIGESTS)


@pytest.mark.parametrize(
    ("accuracy", "champion", "promote", "reason"),
    [
        (0.95, None, True, "promoted: the first, with val/kept_accuracy 0.9500"),
        (0.85, None, False, "not promoted: val/kept_accuracy 0.8500 is below 0.9"),
        (0.96, 0.95, True, "promoted: val/kept_accuracy 0.9600 against 0.9500 of version 1, a gain of +0.0100"),
        (0.9505, 0.95, False, "a gain of +0.0005; 0.001 is needed"),
        (0.951, 0.95, True, "a gain of +0.0010"),  # 0.951 - 0.95 is a little less in floats
        (0.94, 0.95, False, "a gain of -0.0100; 0.001 is needed"),
    ],
)
def test_the_rule(accuracy: float, champion: float | None, promote: bool, reason: str) -> None:
    decision = decide(contender("2", accuracy), contender("1", champion) if champion else None, RULE)
    assert decision.promote is promote
    assert reason in decision.reason


def test_better_on_other_images_is_no_gain() -> None:
    other = replace(contender("2", 0.99), digests={"val": "x", "test": "b"})
    decision = decide(other, contender("1", 0.95), RULE)
    assert not decision.promote
    assert "measured on other val images than version 1's" in decision.reason
    assert "gender-classifier promote 2" in decision.reason
    # A rule that looks at test asks for equal test images only.
    assert decide(other, contender("1", 0.95), replace(RULE, metric="test/accuracy")).promote


@pytest.mark.parametrize("split", ["val", "test"])
def test_nothing_is_compared_across_corrections_of_val_or_test(split: str) -> None:
    """Whichever of the two has them, and whichever split the rule looks at."""
    corrected = replace(contender("2", 0.99), digests=DIGESTS | {split: "x"}, corrections={split: 3, "train": 9})
    for challenger, champion in ((corrected, contender("1", 0.95)), (contender("3", 0.995), corrected)):
        for metric in ("val/kept_accuracy", "test/accuracy"):
            decision = decide(challenger, champion, replace(RULE, metric=metric))
            assert not decision.promote
            assert f"labels of {split} were corrected (" in decision.reason
            assert f"gender-classifier promote {challenger.version}" in decision.reason
    # Both have learned from the same corrections, or val and test have none.
    assert decide(
        replace(corrected, version="3"), replace(corrected, metrics=contender("1", 0.95).metrics), RULE
    ).promote
    train = replace(contender("2", 0.99), corrections={"train": 9})
    assert decide(train, contender("1", 0.95), RULE).promote


def test_a_lower_loss_is_a_gain() -> None:
    rule = replace(RULE, metric="val/kept_loss")
    low, high = contender("2", 0.95, **{"val/kept_loss": 0.1}), contender("1", 0.95, **{"val/kept_loss": 0.2})
    assert decide(low, high, rule).promote
    assert not decide(high, low, rule).promote


def test_a_champion_without_the_figure_stays() -> None:
    decision = decide(
        contender("2", 0.95, **{"val/kept_loss": 0.1}), contender("1", 0.95), replace(RULE, metric="val/kept_loss")
    )
    assert (decision.promote, decision.reason) == (
        False, "not promoted: version 1 has no figure val/kept_loss to compare with")  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "theirs", "promote", "reason"),
    [
        (Gap(0.10, "a"), Gap(0.12, "a"), True, "promoted: val/kept_accuracy 0.9600"),
        (Gap(0.12, "a"), Gap(0.10, "a"), True, "promoted: "),  # exactly the limit, a little more in floats
        (Gap(0.13, "a"), Gap(0.10, "a"), False, "the gap between groups on utk is 0.1300 against 0.1000 of version 1, wider by 0.0300; 0.02 is allowed"),
        (Gap(0.10, "a"), Gap(0.10, "b"), False, "the gap on utk was measured on other images than version 1's; compare the two by hand, then: gender-classifier promote 2"),
        (Gap(0.10, "a"), None, False, "version 1 has no gap on utk to compare with; compare the two by hand"),
        (None, Gap(0.10, "a"), False, "the extra set utk has fewer than two groups to measure a gap between"),
    ],
)  # fmt: skip
def test_a_wider_gap_between_groups_is_refused(
    ours: Gap | None, theirs: Gap | None, promote: bool, reason: str
) -> None:
    rule = replace(RULE, max_gap={"utk": 0.02})
    challenger = replace(contender("2", 0.96), gaps={"utk": ours} if ours else {})
    champion = replace(contender("1", 0.95), gaps={"utk": theirs} if theirs else {})
    decision = decide(challenger, champion, rule)
    assert (decision.promote, reason in decision.reason) == (promote, True), decision.reason
    assert decide(challenger, champion, RULE).promote  # without the rule, gaps do not matter
    assert decide(challenger, None, rule).promote  # the first has none to be compared with
    worse = decide(replace(challenger, metrics=contender("2", 0.9).metrics), champion, rule)
    assert "a gain of -0.0500" in worse.reason


@given(st.floats(0.9, 1), st.floats(0.9, 1), st.floats(0, 0.1))
def test_at_most_one_of_two_beats_the_other(one: float, other: float, gain: float) -> None:
    rule = replace(RULE, min_gain=gain)
    first, second = contender("1", one), contender("2", other)
    assert not (decide(first, second, rule).promote and decide(second, first, rule).promote)
    assert not decide(first, replace(first, version="3"), rule).promote
