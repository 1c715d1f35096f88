"""A task to learn: noisy digits of 5 by 7 pixels; and a linear classifier, trained here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

_GLYPHS = {
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00010 00100 01000 11111",
    "3": "11111 00010 00100 00010 00001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "00110 01000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00010 01100",
}
LABELS = tuple(_GLYPHS)
Sample = tuple[list[int], str]


def samples(count: int, seed: int, noise: float = 0.06) -> list[Sample]:
    """Pixels and the true label."""
    dice = random.Random(seed)
    found = []
    for _ in range(count):
        label = dice.choice(LABELS)
        pixels = [int(bit) for bit in _GLYPHS[label].replace(" ", "")]
        found.append(([bit ^ (dice.random() < noise) for bit in pixels], label))
    return found


def scores(model: dict[str, Any], pixels: Sequence[int]) -> list[float]:
    """One for each label."""
    return [
        bias + sum(weight * pixel for weight, pixel in zip(weights, pixels, strict=True))
        for weights, bias in zip(model["weights"], model["biases"], strict=True)
    ]


def classify(model: dict[str, Any], pixels: Sequence[int]) -> str:
    """The label with the highest score."""
    found = scores(model, pixels)
    return str(model["labels"][found.index(max(found))])


def train(examples: Sequence[Sample], epochs: int = 12) -> dict[str, Any]:
    """Averaged perceptron: integers added up, so that every machine learns the same."""
    size = len(examples[0][0])
    weights = {label: [0] * (size + 1) for label in LABELS}
    total = {label: [0] * (size + 1) for label in LABELS}
    for _ in range(epochs):
        for pixels, truth in examples:
            inputs = [*pixels, 1]
            values = {
                label: sum(w * x for w, x in zip(row, inputs, strict=True))
                for label, row in weights.items()
            }
            guess = max(LABELS, key=lambda label: values[label])
            if guess != truth:
                for at, x in enumerate(inputs):
                    weights[truth][at] += x
                    weights[guess][at] -= x
        for label, row in weights.items():
            total[label] = [a + b for a, b in zip(total[label], row, strict=True)]
    return {
        "labels": list(LABELS),
        "weights": [total[label][:-1] for label in LABELS],
        "biases": [total[label][-1] for label in LABELS],
    }
