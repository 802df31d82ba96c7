"""Limits of the service, and who may use it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What the service takes, and from whom."""

    max_bytes: int = 16 * 2**20
    """Of one request's body."""
    max_images: int = 64
    """Of one request."""
    max_pixels: int = 25_000_000
    """Of one picture; decoded, 25 million are 75 MB, and two are decoded at once."""
    max_requests: int = 64
    """Worked on at once, the waiting included; one more is told to come again."""
    max_held_bodies: int = 8
    """Bodies of ``max_bytes`` that are held at once; smaller ones are more."""
    threshold: float = 0.8
    """A lower probability counts as uncertain."""
    api_key: str | None = None
    """What predictions, heat maps and metrics ask for."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that the service answers to, besides addresses and ``localhost``."""
    registry_version: str | None = None
    """Of the model, if it came from MLflow's registry."""
