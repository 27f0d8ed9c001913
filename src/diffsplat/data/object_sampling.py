"""Sampling weights by noun, and the order of the rows in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffsplat.data import shard_schema

if TYPE_CHECKING:
    import pyarrow

_LEAST_OBJECTS, _MOST_OBJECTS = 4, 24
"""Objects that a rare noun and a common one count as."""


def noun_weights(
    nouns: Sequence[str] | pyarrow.ChunkedArray, object_ids: Sequence[str] | pyarrow.ChunkedArray
) -> NDArray[np.float64]:
    """Weight ``[N]`` of each row, 1 on average, so that every noun counts as 4 to 24 objects.

    Repainted versions of an object share its weight.
    """
    noun, of_object = _numbered(nouns), _numbered(object_ids, without="#.*")
    versions = np.bincount(of_object)
    pairs = np.unique(noun * len(versions) + of_object)
    objects = np.bincount(pairs // len(versions))
    weights = objects.clip(_LEAST_OBJECTS, _MOST_OBJECTS)[noun] / objects[noun] / versions[of_object]
    return weights * (len(weights) / weights.sum())


class EpochOrder:
    """Rows in the order of endless shuffled epochs.

    Args:
        length: number of rows.
        seed: of the order.
        weights: ``[length]`` how often each row comes; each once an epoch by default.
    """

    def __init__(self, length: int, seed: int, weights: NDArray[np.floating] | None = None) -> None:
        self._length = length
        self._seed = seed
        self._weights = weights
        self._known: tuple[int, NDArray[np.int64]] | None = None

    def rows(self, positions: Sequence[int]) -> list[int]:
        """Rows at some positions of the sequence of epochs."""
        return [int(self._epoch(position // self._length)[position % self._length]) for position in positions]

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        if self._known is None or self._known[0] != epoch:
            if self._weights is None:
                order = np.random.default_rng([self._seed, epoch]).permutation(self._length)
            else:
                order = epoch_order(self._weights, self._seed, epoch)
            self._known = epoch, order
        return self._known[1]


def epoch_order(weights: NDArray[np.floating], seed: int, epoch: int) -> NDArray[np.int64]:
    """``[N]`` rows of an epoch in random order, each ``N w / sum(w)`` times, rounded up or down at random.

    Systematic sampling: of rows with weight 1 each comes exactly once.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(weights))
    ends = np.cumsum(weights[order]) * (len(weights) / weights.sum())
    places = np.searchsorted(ends, random.uniform() + np.arange(len(weights)), side="right")
    return random.permutation(order[np.minimum(places, len(weights) - 1)])


def _numbered(texts: Sequence[str] | pyarrow.ChunkedArray, without: str | None = None) -> NDArray[np.int64]:
    """``[N]`` one number for each different text, after what a pattern matches is taken away."""
    pa = shard_schema.import_pyarrow()
    column: Any = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([texts], pa.string())
    if without is not None:
        column = shard_schema.import_compute().replace_substring_regex(column, without, "")
    encoded = column.dictionary_encode().unify_dictionaries()
    return np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks]).astype(np.int64)
