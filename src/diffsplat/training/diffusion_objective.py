"""Diffusion objectives: drawn noise levels, noisy and target latents, and the weighted loss of every object.

All views of an object share one noise level. Every path from latents ``x`` to noise ``n`` is
``signal * x + noise * n``; objectives differ in how the two factors are drawn and in what the network predicts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, assert_never

import torch
from torch import Tensor

from diffsplat.models.rays_and_noise_levels import TIMESTEPS
from diffsplat.pretrained.release_catalogue import Prediction


@dataclass(frozen=True)
class NoiseLevels:
    """Noise levels of ``B`` objects.

    Args:
        signal: ``[B]`` factor of the latents, 0..1.
        noise: ``[B]`` factor of the noise, 0..1.
        timestep: ``[B]`` what the network is conditioned on.
    """

    signal: Tensor
    noise: Tensor
    timestep: Tensor

    @property
    def snr(self) -> Tensor:
        """``[B]`` signal-to-noise ratio of the variances."""
        return (self.signal / self.noise).square()

    def noisy(self, latents: Tensor, noise: Tensor) -> Tensor:
        """Noisy latents of latents and standard normal noise ``[B, V, C, h, w]``."""
        return _per_object(self.signal) * latents + _per_object(self.noise) * noise


class LevelSource(Protocol):
    """Draws noise levels."""

    def draw(self, count: int, device: torch.device | None = None) -> NoiseLevels:
        """Random levels of ``count`` objects, from torch's global generator."""
        ...

    def at_quantile(self, share: Tensor) -> NoiseLevels:
        """The levels that shares ``[B]``, 0..1, of the random ones lie below (in noise)."""
        ...


@dataclass(frozen=True)
class UniformTimesteps:
    """Whole timesteps of a variance-preserving schedule (Ho et al. 2020), all equally likely.

    Args:
        alphas_cumprod: ``[T]`` remaining share of the latents' variance at each timestep.
    """

    alphas_cumprod: Tensor

    @classmethod
    def from_scheduler(cls, config: Mapping[str, Any]) -> Self:
        """The schedule of a diffusers ``scheduler_config.json``.

        ``rescale_betas_zero_snr`` is ignored: the original sets it after its schedule is made, without effect.
        """
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
        given = {name: config[name] for name in names if name in config}
        return cls(DDPMScheduler(**given).alphas_cumprod)

    def draw(self, count: int, device: torch.device | None = None) -> NoiseLevels:
        """Random levels of ``count`` objects."""
        return self.at(torch.randint(len(self.alphas_cumprod), (count,), device=device))

    def at_quantile(self, share: Tensor) -> NoiseLevels:
        """The levels of shares ``[B]`` of the timesteps."""
        last = len(self.alphas_cumprod) - 1
        return self.at((share * (last + 1)).long().clamp(max=last))

    def at(self, timestep: Tensor) -> NoiseLevels:
        """The levels of ``[B]`` timesteps."""
        kept = self.alphas_cumprod.to(timestep.device)[timestep]
        return NoiseLevels(kept.sqrt(), (1 - kept).sqrt(), timestep)


@dataclass(frozen=True)
class ShiftedFlowSteps:
    """Steps of a flow whose noise levels are shifted towards noise (Esser et al. 2024, section 5.3.2).

    A step's index is ``floor(steps * sigmoid(n))`` with ``n`` normal. Index 0 is pure noise.

    Args:
        shift: ``a`` in ``a s / (1 + (a - 1) s)``.
        steps: number of steps.
        mean: of the normal draws.
        deviation: of the normal draws.
    """

    shift: float = 3.0
    steps: int = TIMESTEPS
    mean: float = 0.0
    deviation: float = 1.0

    def draw(self, count: int, device: torch.device | None = None) -> NoiseLevels:
        """Random levels of ``count`` objects."""
        return self.at(torch.randn(count, device=device))

    def at_quantile(self, share: Tensor) -> NoiseLevels:
        """The levels of shares ``[B]`` of the draws; the index falls with the noise."""
        return self.at(torch.special.ndtri(1 - share))

    def at(self, normal: Tensor) -> NoiseLevels:
        """The levels of ``[B]`` standard normal draws."""
        uniform = torch.sigmoid(self.mean + self.deviation * normal)
        return self.at_index((uniform * self.steps).long().clamp(max=self.steps - 1))

    def at_index(self, index: Tensor) -> NoiseLevels:
        """The levels of ``[B]`` whole step indices."""
        linear = (self.steps - index).float() / self.steps
        sigma = self.shift * linear / (1 + (self.shift - 1) * linear)
        return NoiseLevels(1 - sigma, sigma, TIMESTEPS * sigma)


@dataclass(frozen=True)
class LogitNormalLevels:
    """Levels of a flow whose logits are normal (Esser et al. 2024, section 3.1).

    Args:
        mean: of the logits.
        deviation: of the logits.
        greatest: factor of the levels, so that all lie below it; 0..1.
    """

    mean: float = 0.0
    deviation: float = 1.0
    greatest: float = 1.0

    def draw(self, count: int, device: torch.device | None = None) -> NoiseLevels:
        """Random levels of ``count`` objects."""
        return self.at(torch.randn(count, device=device))

    def at_quantile(self, share: Tensor) -> NoiseLevels:
        """The levels of shares ``[B]`` of the draws."""
        return self.at(torch.special.ndtri(share))

    def at(self, normal: Tensor) -> NoiseLevels:
        """The levels of ``[B]`` standard normal draws."""
        level = self.greatest * torch.sigmoid(self.mean + self.deviation * normal)
        return self.at_level(level)

    def at_level(self, level: Tensor) -> NoiseLevels:
        """Levels ``[B]`` given as the share of noise, 0..1."""
        return NoiseLevels(1 - level, level, TIMESTEPS * level)


@dataclass(frozen=True)
class MinSnrWeight:
    """Minimum-SNR weights (Hang et al. 2023): an object's loss counts as if its SNR were at most ``gamma``."""

    gamma: float = 5.0


@dataclass(frozen=True)
class InverseLevelWeight:
    """``1 / level ** 2``: turns the error of predicted latents into that of the velocity.

    Args:
        least: lower levels weigh as much as this one.
    """

    least: float = 0.25


LossWeight = MinSnrWeight | InverseLevelWeight


@dataclass(frozen=True)
class Objective:
    """What a denoiser learns.

    Args:
        prediction: what its output means.
        levels: where noise levels come from.
        weight: of an object's loss by its noise level; None for 1.
        compare_latents: the loss is that of the clean latents which follow from the output, whatever it means
            (``precondition_outputs`` of SD3's trainers).
    """

    prediction: Prediction
    levels: LevelSource
    weight: LossWeight | None = None
    compare_latents: bool = False

    def target(self, latents: Tensor, noise: Tensor, levels: NoiseLevels) -> Tensor:
        """What the network should predict, ``[B, V, C, h, w]`` like latents and noise."""
        match self.prediction:
            case "epsilon":
                return noise
            case "v_prediction":
                return _per_object(levels.signal) * noise - _per_object(levels.noise) * latents
            case "flow":
                return noise - latents
            case "latents":
                return latents
            case _:
                assert_never(self.prediction)

    def clean_latents(self, predicted: Tensor, noisy: Tensor, levels: NoiseLevels) -> Tensor:
        """The clean latents that follow from a prediction at noisy latents, all ``[B, V, C, h, w]``."""
        signal, noise = _per_object(levels.signal), _per_object(levels.noise)
        match self.prediction:
            case "epsilon":
                return (noisy - noise * predicted) / signal
            case "v_prediction":
                return signal * noisy - noise * predicted
            case "flow":
                return noisy - noise * predicted
            case "latents":
                return predicted
            case _:
                assert_never(self.prediction)

    def losses(self, predicted: Tensor, latents: Tensor, noise: Tensor, levels: NoiseLevels) -> Tensor:
        """``[B]`` weighted mean squared error of each object.

        Args:
            predicted: ``[B, V, C, h, w]`` output of the network at ``levels.noisy(latents, noise)``.
            latents: ``[B, V, C, h, w]`` clean latents.
            noise: ``[B, V, C, h, w]`` standard normal.
            levels: of the objects.
        """
        if self.compare_latents:
            error = self.clean_latents(predicted, levels.noisy(latents, noise), levels) - latents
        else:
            error = predicted - self.target(latents, noise, levels)
        return self.loss_weights(levels) * error.square().flatten(1).mean(dim=1)

    def loss_weights(self, levels: NoiseLevels) -> Tensor:
        """``[B]`` weights of the objects' losses."""
        match self.weight:
            case None:
                return torch.ones_like(levels.noise)
            case InverseLevelWeight(least):
                return levels.noise.clamp_min(least).square().reciprocal()
            case MinSnrWeight(gamma):
                snr = levels.snr
                # An error of predicted noise is that of the latents times the SNR, one of v times SNR + 1.
                scale = snr + 1 if self.prediction == "v_prediction" else snr
                return snr.clamp(max=gamma) / scale
            case _:
                assert_never(self.weight)


def rendering_weights(levels: NoiseLevels, gamma: float) -> Tensor:
    """``[B]`` weights ``min(SNR, gamma)`` of the rendering loss, which means little where latents are mostly noise."""
    return levels.snr.clamp(max=gamma)


def _per_object(factor: Tensor) -> Tensor:
    """``[B]`` to ``[B, 1, 1, 1, 1]``."""
    return factor[:, None, None, None, None]
