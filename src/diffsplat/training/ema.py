"""Exponential moving average of weights."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from diffsplat.training.random_seeds import mixed_seed
from diffsplat.training.sharded_weights import own_part
from diffsplat.training.trainer_config import AveragePrecision, EmaConfig

_HALF: dict[AveragePrecision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
_EXPONENT = 0x7F800000
"""Bits of the exponent in an fp32 number: alone they are the power of two below it."""
_LEAST_POWER = 2.0**-100
"""Well above what a processor may take for zero."""


class Ema:
    """Averages parameters after every step: ``average <- d average + (1 - d) parameter``.

    The decay grows as ``d = min(decay, 1 - (1 + n) ** -power)`` with ``n`` the updates so far, so that the
    first update forgets the initial weights and a short run is not dominated by them. The averages are fp32 whatever
    the parameters are, unless the configuration says otherwise. Those in half precision would not move by a
    thousandth of what is between them and the parameters, so they are rounded at random, in the same way by every
    process and by a run that is continued.
    """

    def __init__(self, parameters: Mapping[str, Tensor], config: EmaConfig) -> None:
        self._config = config
        self._names = list(parameters)
        self._live = list(parameters.values())
        half = _HALF.get(config.precision)
        self._average = [
            p.detach().to(half or torch.promote_types(p.dtype, torch.float32), copy=True) for p in self._live
        ]
        self.updates = 0

    @property
    def decay(self) -> float:
        """Decay of the next update."""
        return min(self._config.decay, 1.0 - (1.0 + self.updates) ** -self._config.power)

    @torch.no_grad()
    def update(self) -> None:
        """Take up the current parameters."""
        if self._config.precision == "fp32":
            live = [p.to(average.dtype) for p, average in zip(self._live, self._average, strict=True)]
            torch._foreach_lerp_(self._average, live, 1.0 - self.decay)  # pyright: ignore[reportPrivateImportUsage]
        else:
            self._update_at_random()
        self.updates += 1

    def _update_at_random(self) -> None:
        """One average after another, so that only one is in fp32 at a time."""
        generators: dict[torch.device, torch.Generator] = {}
        for live, average in zip(map(own_part, self._live), map(own_part, self._average), strict=True):
            if average.device not in generators:
                generators[average.device] = torch.Generator(average.device).manual_seed(
                    mixed_seed(self.updates)
                )
            exact = average.float().lerp_(live.float(), 1.0 - self.decay)
            average.copy_(rounded_at_random(exact, average.dtype, generators[average.device]))

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


def rounded_at_random(values: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """One of the two neighbours in half precision of each number, the nearer one the more often.

    The mean over many draws is the number itself (stochastic rounding, Gupta et al. 2015).

    Args:
        values: in fp32.
        dtype: of the result, ``float16`` or ``bfloat16``.
        generator: of the draws, on the same device.
    """
    half, full = torch.finfo(dtype), torch.finfo(torch.float32)
    power = (values.view(torch.int32) & _EXPONENT).view(torch.float32)
    spacing = half.eps * power.clamp_min(max(half.smallest_normal, _LEAST_POWER))
    parts = round(half.eps / full.eps)
    raised = torch.empty_like(values).random_(0, parts, generator=generator) / parts
    return ((values / spacing + raised).floor_() * spacing).to(dtype)


def _copy(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    """One by one: tensors that are split over processes have no copy of lists."""
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
