"""Which version deserves to be champion: a pure rule over two versions' figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gender_classifier.evaluate.params import PromotionParams

BY_HAND = "; compare the two by hand, then: gender-classifier promote "
"""Ends a refusal that is not about the figures, before the version's number."""


class Gap(NamedTuple):
    """Gap between the groups of an extra set: its ``size``, and the ``digest`` of the images it was measured on."""

    size: float
    digest: str


@dataclass(frozen=True)
class Contender:
    """One version.

    Attributes:
        version: its number.
        metrics: by MLflow's names.
        digests: of the images and labels of ``val`` and ``test``.
        corrections: number of images of each split that people relabelled or removed; a missing split has none.
        gaps: of each extra set that has groups.
    """

    version: str
    metrics: Mapping[str, float]
    digests: Mapping[str, str]
    corrections: Mapping[str, int] = field(default_factory=dict)
    gaps: Mapping[str, Gap] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, and why, in one sentence."""

    promote: bool
    reason: str


def decide(challenger: Contender, champion: Contender | None, rule: PromotionParams) -> Decision:
    """Decide whether the challenger becomes champion.

    It does if its figure is good enough, better by ``min_gain`` on the very same images, and if on no set of
    ``max_gap`` its gap between groups exceeds the champion's by more than the limit. The first champion has no other's
    gap to be compared with. Where labels of val or test were corrected between the two, they are not compared: the
    registry shows the figures of both splits side by side.
    """
    metric = rule.metric
    split = "test" if metric.startswith("test/") else "val"
    accuracy_name = "test/accuracy" if split == "test" else "val/kept_accuracy"
    accuracy, figure = challenger.metrics[accuracy_name], challenger.metrics[metric]
    if accuracy < rule.min_accuracy:
        return Decision(False, f"not promoted: {accuracy_name} {accuracy:.4f} is below {rule.min_accuracy:g}")
    if champion is None:
        return Decision(True, f"promoted: the first, with {metric} {figure:.4f}")
    if difference := _find_difference(challenger, champion, split, f"{metric} {figure:.4f}"):
        return Decision(False, f"not promoted: {difference}{BY_HAND}{challenger.version}")
    if metric not in champion.metrics:
        return Decision(False, f"not promoted: version {champion.version} has no figure {metric} to compare with")
    theirs = champion.metrics[metric]
    gain = theirs - figure if metric.endswith("loss") else figure - theirs
    compared = f"{metric} {figure:.4f} against {theirs:.4f} of version {champion.version}, a gain of {gain:+.4f}"
    # A gain of exactly the minimum counts, whatever the last bit of a float says.
    if gain + 1e-9 < rule.min_gain or gain <= 0:
        problem = f"{compared}; {rule.min_gain:g} is needed"
    else:
        gaps = (_find_gap(challenger, champion, name, limit) for name, limit in rule.max_gap.items())
        problem = next(filter(None, gaps), "")
    return Decision(not problem, f"not promoted: {problem}" if problem else f"promoted: {compared}")


def _find_difference(challenger: Contender, champion: Contender, split: str, figure: str) -> str:
    """Return why a ``figure`` on ``split`` does not compare with the champion's; an empty text if it does."""
    for name in ("val", "test"):
        is_other = challenger.digests[name] != champion.digests.get(name)
        counts = [found.corrections.get(name, 0) for found in (challenger, champion)]
        if is_other and any(counts):
            return (
                f"labels of {name} were corrected ({counts[0]}; of version {champion.version}'s: {counts[1]}), so "
                "their figures do not compare"
            )
    if challenger.digests[split] != champion.digests.get(split):
        return f"{figure} was measured on other {split} images than version {champion.version}'s"
    return ""


def _find_gap(challenger: Contender, champion: Contender, name: str, limit: float) -> str:
    """Return why the challenger's gap on an extra set forbids its promotion; an empty text if it does not."""
    ours, theirs = challenger.gaps.get(name), champion.gaps.get(name)
    if ours is None:
        return f"the extra set {name} has fewer than two groups to measure a gap between; take it out of max_gap"
    if theirs is None:
        return f"version {champion.version} has no gap on {name} to compare with{BY_HAND}{challenger.version}"
    if ours.digest != theirs.digest:
        where = f"other images than version {champion.version}'s"
        return f"the gap on {name} was measured on {where}{BY_HAND}{challenger.version}"
    rise = ours.size - theirs.size
    if rise > limit + 1e-9:
        return (
            f"the gap between groups on {name} is {ours.size:.4f} against {theirs.size:.4f} of version "
            f"{champion.version}, wider by {rise:.4f}; {limit:g} is allowed"
        )
    return ""
