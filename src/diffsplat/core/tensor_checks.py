"""Validation of tensors: every error names the field, what it holds and what was expected."""

import torch
from torch import Tensor

_TOLERANCE = 1e-3


class NonFiniteError(ValueError):
    """A tensor holds NaN or infinite values."""


def require_field(
    owner: str, name: str, tensor: Tensor, tail: tuple[int | None, ...], batch: torch.Size | None = None
) -> None:
    """Refuse a field that is not ``[*batch, *tail]`` (None matches anything), no float, or not finite."""
    require_shape(owner, name, tensor, tail)
    if batch is not None:
        require_batch(owner, name, tensor.shape[: -len(tail)], batch)
    require_floating(owner, name, tensor)
    require_finite(owner, name, tensor)


def require_shape(owner: str, name: str, tensor: Tensor, tail: tuple[int | None, ...]) -> None:
    """Refuse ``tensor`` unless its last dimensions equal ``tail`` (None matches any length)."""
    shape = tuple(tensor.shape)
    fits = len(shape) >= len(tail) and all(
        want is None or have == want for have, want in zip(shape[len(shape) - len(tail) :], tail, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in tail)
        raise ValueError(f"{owner}.{name} has shape {shape}, expected [..., {wanted}]")


def require_batch(owner: str, name: str, have: torch.Size, want: torch.Size) -> None:
    """Refuse a field whose leading dimensions differ from those of the first field."""
    if have != want:
        raise ValueError(f"{owner}.{name} has leading dimensions {tuple(have)}, expected {tuple(want)}")


def require_floating(owner: str, name: str, tensor: Tensor) -> None:
    """Refuse integer and boolean tensors."""
    if not tensor.is_floating_point():
        raise ValueError(f"{owner}.{name} has dtype {tensor.dtype}, expected a floating-point tensor")


def require_finite(owner: str, name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinite values."""
    with torch.no_grad():
        # A finite sum proves that every value is finite, and costs one pass without a temporary.
        if tensor.numel() and not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteError(f"{owner}.{name} has {bad} NaN or infinite values, expected finite numbers")


def require_range(owner: str, name: str, tensor: Tensor, low: float, high: float) -> None:
    """Refuse values outside ``[low, high]``, with a tolerance of 0.001 for rounding."""
    if not tensor.numel():
        return
    with torch.no_grad():
        minimum, maximum = (float(value) for value in torch.aminmax(tensor))
    if minimum < low - _TOLERANCE or maximum > high + _TOLERANCE:
        raise ValueError(
            f"{owner}.{name} spans {minimum:.4g} to {maximum:.4g}, expected values in [{low:g}, {high:g}]"
        )


def require_positive(owner: str, name: str, tensor: Tensor) -> None:
    """Refuse zero and negative values."""
    if tensor.numel():
        minimum = float(tensor.detach().min())
        if minimum <= 0:
            raise ValueError(f"{owner}.{name} has the value {minimum:.4g}, expected positive numbers")


def require_unit(owner: str, name: str, tensor: Tensor) -> None:
    """Refuse vectors (last dimension) whose length is further than 0.001 from one."""
    if tensor.numel():
        lengths = torch.linalg.vector_norm(tensor.detach(), dim=-1).flatten()
        worst = float(lengths[(lengths - 1).abs().argmax()])
        if abs(worst - 1) > _TOLERANCE:
            raise ValueError(f"{owner}.{name} has a vector of length {worst:.4g}, expected unit vectors")
