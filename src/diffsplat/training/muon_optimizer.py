"""The optimizer Muon (Jordan et al. 2024), in the number format that a device is fast in."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from diffsplat.errors import require
from diffsplat.models.autocast import faster_in_bf16

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration: not the ones that converge, but those that raise small values fastest."""
NEWTON_SCHULZ_STEPS = 5
_ADAMW_RMS = 0.2
"""Root mean square of an entry of AdamW's update (Liu et al. 2025, "Muon is Scalable for LLM Training", 2.2)."""
_EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for the hidden matrices and convolutions of a network.

    The same rule as ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"``. That one always iterates in
    bfloat16, which a CPU without such instructions emulates: there it is dozens of times slower than this. And it
    takes no convolutions: here the kernel ``[M, N, h, w]`` of one counts as a matrix ``[M, N * h * w]``.

    Args:
        parameters: matrices and kernels.
        lr: learning rate; an update has the size of AdamW's at the same one.
        weight_decay: decoupled decay.
        momentum: of the moving average of the gradients, with Nesterov's look ahead.

    Raises:
        ValueError: a parameter is a scalar or a vector.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float
    ) -> None:
        members = list(parameters)
        for member in members:
            shape = tuple(member.shape)
            require(member.ndim >= 2, "the shape of a parameter of Muon", shape, "two dimensions or more")
        super().__init__(members, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update the parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, float]) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"]
        average.lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(average, group["momentum"]).flatten(1)
        size = group["lr"] * _ADAMW_RMS * max(ahead.shape) ** 0.5
        dtype = torch.bfloat16 if faster_in_bf16(parameter.device) else torch.float32
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(orthogonalized(ahead, dtype).view_as(parameter), alpha=-size)


def orthogonalized(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """A matrix ``[M, N]`` with its singular values brought near one, by Newton-Schulz iterations in ``dtype``.

    All that were not tiny come to lie between about 0.7 and 1.2.
    """
    a, b, c = NEWTON_SCHULZ
    upright = matrix.shape[0] > matrix.shape[1]
    values = (matrix.mT if upright else matrix).to(dtype, copy=True)
    values.div_(values.norm().clamp_min(_EPSILON))
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = values @ values.mT
        values = torch.addmm(values, torch.addmm(gram, gram, gram, beta=b, alpha=c), values, beta=a)
    return values.mT if upright else values
