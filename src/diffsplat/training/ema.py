"""Exponential moving average of weights."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from diffsplat.training.trainer_config import EmaConfig


class Ema:
    """Averages parameters after every step: ``average <- d average + (1 - d) parameter``.

    The decay grows as ``d = min(decay, 1 - (1 + n) ** -power)`` with ``n`` the updates so far, so that the
    first update forgets the initial weights and a short run is not dominated by them. The averages are fp32 whatever
    the parameters are: a half-precision average would not move by a thousandth of what is between it and them.
    """

    def __init__(self, parameters: Mapping[str, Tensor], config: EmaConfig) -> None:
        self._config = config
        self._names = list(parameters)
        self._live = list(parameters.values())
        self._average = [
            p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True) for p in self._live
        ]
        self.updates = 0

    @property
    def decay(self) -> float:
        """Decay of the next update."""
        return min(self._config.decay, 1.0 - (1.0 + self.updates) ** -self._config.power)

    @torch.no_grad()
    def update(self) -> None:
        """Take up the current parameters."""
        live = [p.to(average.dtype) for p, average in zip(self._live, self._average, strict=True)]
        torch._foreach_lerp_(self._average, live, 1.0 - self.decay)  # pyright: ignore[reportPrivateImportUsage]
        self.updates += 1

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The parameters hold their averages inside the block and their own values after it."""
        with torch.no_grad():
            kept = [p.detach().clone() for p in self._live]
            _copy(self._live, self._average)
        try:
            yield
        finally:
            with torch.no_grad():
                _copy(self._live, kept)

    def state(self) -> dict[str, Tensor]:
        """Averages by parameter name."""
        return dict(zip(self._names, self._average, strict=True))

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Take up what :meth:`state` gave after ``updates`` updates."""
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(tensors[name])
        self.updates = updates


def _copy(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    """One by one: tensors that are split over processes have no copy of lists."""
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
