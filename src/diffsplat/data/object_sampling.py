"""How often each row is trained with: rare nouns more often, common ones less."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffsplat.data.object_dataset import ObjectRow
from diffsplat.errors import InvalidInputError


def noun_weights(rows: Sequence[ObjectRow], *, least: int = 4, most: int = 24) -> NDArray[np.float64]:
    """Weight ``[N]`` of each row, 1 on average, so that every noun counts as ``least`` to ``most`` objects.

    Repainted versions of an object share its weight.

    Raises:
        ValueError: ``least`` is not between 1 and ``most``.
    """
    if not 1 <= least <= most:
        raise InvalidInputError(f"least is {least}, most {most}: expected 1 <= least <= most")
    objects = {(row.noun, _object_of(row)) for row in rows}
    of_noun = Counter(noun for noun, _ in objects)
    versions = Counter(_object_of(row) for row in rows)
    weights = np.array(
        [
            min(max(of_noun[row.noun], least), most) / of_noun[row.noun] / versions[_object_of(row)]
            for row in rows
        ]
    )
    return weights * (len(rows) / weights.sum())


def epoch_order(weights: NDArray[np.floating], seed: int, epoch: int) -> NDArray[np.int64]:
    """``[N]`` rows of an epoch in random order, each ``N w / sum(w)`` times, rounded up or down at random.

    Systematic sampling: of rows with weight 1 each comes exactly once.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(weights))
    ends = np.cumsum(weights[order]) * (len(weights) / weights.sum())
    places = np.searchsorted(ends, random.uniform() + np.arange(len(weights)), side="right")
    return random.permutation(order[np.minimum(places, len(weights) - 1)])


def _object_of(row: ObjectRow) -> str:
    return row.object_id.split("#")[0]
