"""Sums of risk."""

from __future__ import annotations


def plus(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    """The risk of both."""
    return tuple(map(float.__add__, one, other))


def minus(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    """What is left of one without the other."""
    return tuple(map(float.__sub__, one, other))


def bound(risk: tuple[float, ...]) -> int:
    """What it may come to."""
    return 0
