"""Which version deserves to be champion: a pure rule over two versions' figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gender_classifier.evaluate.params import PromotionParams


@dataclass(frozen=True)
class Contender:
    """One version.

    Attributes:
        version: its number.
        metrics: by MLflow's names.
        digests: of the images and labels of ``val`` and ``test``.
        corrections: number of images of each split that people relabelled or removed; a missing split has none.
    """

    version: str
    metrics: Mapping[str, float]
    digests: Mapping[str, str]
    corrections: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, and why, in one sentence."""

    promote: bool
    reason: str


def decide(challenger: Contender, champion: Contender | None, rule: PromotionParams) -> Decision:
    """Promote the challenger if its figure is good enough, and better by ``min_gain`` on the very same images.

    Where labels of val or test were corrected between the two, they are not compared: the registry shows the figures
    of both splits side by side.
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
        by_hand = f"compare the two by hand, then: gender-classifier promote {challenger.version}"
        return Decision(False, f"not promoted: {difference}; {by_hand}")
    if metric not in champion.metrics:
        return Decision(False, f"not promoted: version {champion.version} has no figure {metric} to compare with")
    theirs = champion.metrics[metric]
    gain = theirs - figure if metric.endswith("loss") else figure - theirs
    compared = f"{metric} {figure:.4f} against {theirs:.4f} of version {champion.version}, a gain of {gain:+.4f}"
    # A gain of exactly the minimum counts, whatever the last bit of a float says.
    if gain + 1e-9 < rule.min_gain or gain <= 0:
        return Decision(False, f"not promoted: {compared}; {rule.min_gain:g} is needed")
    return Decision(True, f"promoted: {compared}")


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
