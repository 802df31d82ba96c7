"""The table of networks: AlexNet, our ResNet-10, and any of torchvision's classification networks."""

import difflib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torchvision.models as zoo
from torch import nn
from torchvision.models import MNASNet, WeightsEnum
from torchvision.models.resnet import ResNet

from gender_classifier.errors import ModelError
from gender_classifier.model.alexnet import build_alexnet
from gender_classifier.model.resnet import ResNet10, use_small_stem

_ANY_SIZE = ("vit_", "swin_")
"""Networks whose weights name the image size of their training as the least one, and which run on smaller images."""


@dataclass(frozen=True)
class Network:
    """One entry of the table.

    Attributes:
        title: what people call it.
        build: makes it from the number of classes and the image size, px.
        weights: torchvision's for ImageNet; None where there are none.
        heads: what ``train.head`` may be.
        stems: what ``train.stem`` may be.
        min_size: px a side; 1 where only a trial can tell.
    """

    title: str
    build: Callable[..., nn.Module]
    weights: WeightsEnum | None
    heads: tuple[str, ...] = ("linear",)
    stems: tuple[str, ...] = ("original",)
    min_size: int = 1


def list_networks() -> list[str]:
    """Return every name that :func:`find_network` knows."""
    return sorted({"resnet10", *zoo.list_models(module=zoo)})


def find_network(name: str) -> Network:
    """Look up a network.

    Raises:
        ModelError: unknown; names the nearest one.
    """
    if name == "resnet10":
        return Network("ResNet-10", lambda num_classes, image_size: ResNet10(num_classes), None, min_size=8)
    if name not in zoo.list_models(module=zoo):
        near = difflib.get_close_matches(name, list_networks(), 1)
        hint = (
            f"did you mean {near[0]}?"
            if near
            else "choose alexnet, resnet10 or a classification network of torchvision"
        )
        raise ModelError(f"unknown network {name!a}; {hint}")
    weights = zoo.get_model_weights(name).DEFAULT
    min_size = 1 if name.startswith(_ANY_SIZE) else weights.meta.get("min_size", (1, 1))[0]
    if name == "alexnet":
        return Network("AlexNet", build_alexnet, weights, heads=("linear", "full"), min_size=min_size)
    builder = zoo.get_model_builder(name)
    title = re.sub(r"(?<!\d)(\d)_(?=\d)", r"\1.", type(weights).__name__.removesuffix("_Weights")).replace("_", " ")
    stems = ("original", "small") if inspect.signature(builder).return_annotation is ResNet else ("original",)
    return Network(title, partial(_build_torchvision, name), weights, stems=stems, min_size=min_size)


def check_choice(name: str, *, head: str, stem: str, image_size: int, weights: str = "none") -> None:
    """Refuse what cannot be built, without building it.

    Args:
        name: of the network.
        head: ``train.head``.
        stem: ``train.stem``.
        image_size: px a side.
        weights: ``train.weights``.

    Raises:
        ModelError: names the value and what can stand there.
    """
    network = find_network(name)
    if head not in network.heads:
        raise ModelError(f"{name} has no head {head!r}; choose {' or '.join(network.heads)}")
    if stem not in network.stems:
        raise ModelError(f"{name} has no stem {stem!r}; choose {' or '.join(network.stems)}")
    if image_size < network.min_size:
        raise ModelError(f"{name} needs images of at least {network.min_size} px, not {image_size}")
    if weights != "none" and stem != "original":
        raise ModelError(
            f"stem {stem!r} trains from scratch only; set `train.weights` to none or `train.stem` to original"
        )
    if weights == "imagenet" and network.weights is None:
        raise ModelError(f"{name} has no ImageNet weights; set `train.weights` to none or a file")


def build_model(
    head: str, num_classes: int, image_size: int, architecture: str = "alexnet", stem: str = "original"
) -> nn.Module:
    """Build an untrained network that maps normalised float (N, 3, S, S) to logits (N, num_classes).

    Args:
        head: of AlexNet ``linear`` or ``full``; ``linear`` for all others.
        num_classes: width of the last layer.
        image_size: S, px.
        architecture: a name that :func:`find_network` knows.
        stem: ``small`` for the small stem of a ResNet, else ``original``.

    Raises:
        ModelError: an unknown network, head or stem, or images too small for the network.
    """
    check_choice(architecture, head=head, stem=stem, image_size=image_size)
    build = find_network(architecture).build
    model: nn.Module = (
        build(head, num_classes, image_size) if architecture == "alexnet" else build(num_classes, image_size)
    )
    if isinstance(model, ResNet) and stem == "small":
        use_small_stem(model)
    return model


def try_out(model: nn.Module, architecture: str, image_size: int) -> None:
    """Run a network once on two images.

    Raises:
        ModelError: it cannot take images of that size.
    """
    device = next(model.parameters()).device
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(2, 3, image_size, image_size, device=device))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{architecture} cannot take images of {image_size} px ({reason}); change `image_size`"
        ) from None
    finally:
        model.train(was_training)


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def has_batch_norm(model: nn.Module) -> bool:
    """Return True if a layer's result depends on the other images of the batch while it trains."""
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def find_last_layer(model: nn.Module) -> str:
    """Return the name of the layer that gives the logits: the last linear one, or SqueezeNet's last convolution."""
    names: list[str] = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return names[-1]


def _build_torchvision(name: str, num_classes: int, image_size: int) -> nn.Module:
    options: dict[str, object] = {}
    if name in ("googlenet", "inception_v3"):  # with auxiliary heads, training would return a tuple
        options = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": image_size}
    try:
        model: nn.Module = zoo.get_model(name, weights=None, num_classes=num_classes, **options)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{name} cannot be built for images of {image_size} px ({reason}); change `image_size`"
        ) from None
    if isinstance(model, MNASNet):
        # Its own method wants a version, which only a pickled state has, and upgrades states of before 2019.
        vars(model)["_load_from_state_dict"] = partial(nn.Module._load_from_state_dict, model)
    return model
