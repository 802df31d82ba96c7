"""Optimizers, their parameter groups, and the learning-rate schedule."""

import math
from typing import Any

import torch
import torch.utils.deterministic
from torch import nn

from gender_classifier.model.network import find_last_layer
from gender_classifier.train.params import TrainParams


def schedule(name: str, step: int, total: int, warmup_fraction: float) -> float:
    """Return the learning rate of ``step`` (from 0) as a fraction of the peak.

    ``one_cycle`` climbs linearly over ``warmup_fraction`` of the ``total`` steps and falls to zero along a cosine
    (after Smith & Topin 2018, with the climb made linear); ``cosine`` is the fall alone (Loshchilov & Hutter 2017).
    """
    if name == "constant":
        return 1.0
    warmup = round(total * warmup_fraction) if name == "one_cycle" else 0
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def build_optimizer(model: nn.Module, params: TrainParams) -> torch.optim.Optimizer:
    parameters = _group_parameters(model, params)
    lr, decay = params.lr, params.weight_decay
    # One fused kernel over all tensors where torch has it; the same arithmetic otherwise.
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    if params.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=params.momentum, weight_decay=decay, fused=fused)
    if params.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=decay, fused=fused)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=fused)


def _group_parameters(model: nn.Module, params: TrainParams) -> list[dict[str, Any]]:
    """Return one group of all; where the model starts from given weights, the new last layer apart from the rest."""
    named = list(model.named_parameters())
    if params.weights == "none":
        return [{"params": [value for _, value in named], "share": 1.0}]
    last = f"{find_last_layer(model)}."
    return [
        {"params": [value for name, value in named if not name.startswith(last)], "share": params.trunk_lr},
        {"params": [value for name, value in named if name.startswith(last)], "share": 1.0},
    ]
