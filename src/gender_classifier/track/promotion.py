"""Which version deserves to be champion: a pure rule over two versions' figures."""

from collections.abc import Mapping
from dataclasses import dataclass

from gender_classifier.evaluate.params import PromotionParams


@dataclass(frozen=True)
class Contender:
    """One version: its ``metrics`` by MLflow's names, and ``digests`` of the images of ``val`` and ``test``."""

    version: str
    metrics: Mapping[str, float]
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, and why, in one sentence."""

    promote: bool
    reason: str


def decide(challenger: Contender, champion: Contender | None, rule: PromotionParams) -> Decision:
    """Promote the challenger if its figure is good enough, and better by ``min_gain`` on the very same images."""
    metric = rule.metric
    split = "test" if metric.startswith("test/") else "val"
    accuracy_name = "test/accuracy" if split == "test" else "val/kept_accuracy"
    accuracy, figure = challenger.metrics[accuracy_name], challenger.metrics[metric]
    if accuracy < rule.min_accuracy:
        return Decision(False, f"not promoted: {accuracy_name} {accuracy:.4f} is below {rule.min_accuracy:g}")
    if champion is None:
        return Decision(True, f"promoted: the first, with {metric} {figure:.4f}")
    if challenger.digests[split] != champion.digests.get(split):
        return Decision(
            False,
            f"not promoted: {metric} {figure:.4f} was measured on other {split} images than version "
            f"{champion.version}'s; compare the two by hand, then: gender-classifier promote {challenger.version}",
        )
    if metric not in champion.metrics:
        return Decision(False, f"not promoted: version {champion.version} has no figure {metric} to compare with")
    theirs = champion.metrics[metric]
    gain = theirs - figure if metric.endswith("loss") else figure - theirs
    compared = f"{metric} {figure:.4f} against {theirs:.4f} of version {champion.version}, a gain of {gain:+.4f}"
    # A gain of exactly the minimum counts, whatever the last bit of a float says.
    if gain + 1e-9 < rule.min_gain or gain <= 0:
        return Decision(False, f"not promoted: {compared}; {rule.min_gain:g} is needed")
    return Decision(True, f"promoted: {compared}")
