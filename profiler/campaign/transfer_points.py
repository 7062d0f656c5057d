"""Which variants to measure on a new device, from predictors of other devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from joulemap import InputError

from ... import models
from ...datasets import NetworkSpec
from .sampling import WidthTuple, sample, values_of

# Candidates that points are chosen from. A constant: more samples then begin with the fewer.
NUM_CANDIDATES = 2048
# How a campaign's record says that its points were chosen.
CHOSEN = ", chosen by predictors of "


def choose_points(
    spec: NetworkSpec,
    sources: Sequence[models.Predictor],
    count: int,
    *,
    sampling: str = "sobol",
    seed: int = 0,
) -> list[WidthTuple]:
    """Return the `count` width vectors that tell most about a new device, most telling first.

    A longer list begins with the shorter one.

    Args:
        spec: The network.
        sources: Fitted predictors of other devices, in one unit.
        count: How many.
        sampling: How the 2,048 candidates are drawn, see `sampling.SAMPLERS`.
        seed: Of the candidates.

    Raises:
        InputError: More than there are candidates, or sources of another network.
    """
    possible = math.prod(len(values_of(width)) for width in spec.widths)
    num_candidates = min(NUM_CANDIDATES, possible)
    if not 1 <= count <= num_candidates:
        raise InputError(
            f"samples is {count}; with --from it is 1 to {num_candidates}, the number of "
            f"candidates of {spec.name}"
        )
    candidates = sample(spec, num_candidates, sampling=sampling, seed=seed)
    predictor = models.TransferPredictor(spec, sources=sources)
    chosen = predictor.select(np.array(candidates, dtype=np.float64), count)
    return [candidates[index] for index in chosen]


def record_of(sampling: str, sources: Sequence[models.Predictor]) -> str:
    """Return how points were chosen, for a campaign's record."""
    return sampling + CHOSEN + ", ".join(source.device_id_ or "unknown" for source in sources)


def load_sources(
    files: Sequence[str | Path], target: str | None = None, spec: NetworkSpec | None = None
) -> tuple[models.Predictor, ...]:
    """Return the predictors in files of other devices.

    Args:
        files: Predictor files.
        target: Which cost; None takes latency_s, or the only one in the file.
        spec: The network that they must predict; None for any.

    Raises:
        InputError: A file cannot be used, has no such target, or predicts another network.
    """
    from ...models.serialization import targets

    found = []
    for file in files:
        wanted = target
        if wanted is None and "latency_s" in targets(file):
            wanted = "latency_s"
        source = models.load(file, target=wanted)
        if spec is not None and (
            source.spec is None or source.spec.fingerprint != spec.fingerprint
        ):
            name = source.spec.name if source.spec else "no network"
            raise InputError(
                f"{file} predicts {name}, not {spec.name}, or one of the same name with other "
                "layers; --from needs predictors of the network that is measured"
            )
        found.append(source)
    return tuple(found)
