"""Configuration of the trainer."""

from dataclasses import dataclass, field
from math import cos, isfinite, pi
from typing import Literal

from diffsplat.errors import require, require_at_least
from diffsplat.models.autocast import Precision
from diffsplat.training.metrics_tracker import TrackerName
from diffsplat.training.run_processes import Device

OptimizerName = Literal["adamw", "adamw8bit", "muon"]
ScheduleName = Literal["cosine", "constant"]
AveragePrecision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and learning rate.

    Args:
        name: ``adamw``, ``adamw8bit`` with moments of eight bits, or ``muon`` for the hidden matrices and convolutions
            with AdamW for everything else.
        lr: peak learning rate; Muon's updates are scaled to the size of AdamW's, so both use it.
        betas: decay of AdamW's first and second moments.
        weight_decay: decoupled decay.
        decayed: what decays; ``all`` also takes biases and gains, as the paper's runs did.
        lr_factors: factors of the learning rate for parameters whose name contains a text; the first match counts.
        momentum: of Muon.
        muon_exclude: a parameter whose name contains one of these belongs to AdamW (input, output, embeddings).
        warmup_steps: steps of linear warm-up.
        warmup_from_zero: whether the first update has the learning rate 0, as in the paper's runs, or a step's share.
        schedule: what follows the warm-up.
        final_lr: part of the peak at the end of the cosine, 0..1.
        clip_norm: largest L2 norm of all gradients together; ``inf`` for none.

    Raises:
        ValueError: for a number out of range.
    """

    name: OptimizerName = "adamw"
    lr: float = 4e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    decayed: Literal["matrices", "all"] = "matrices"
    lr_factors: tuple[tuple[str, float], ...] = ()
    momentum: float = 0.95
    muon_exclude: tuple[str, ...] = ("embed", "proj_in", "proj_out", "head", "adaln", "scale_shift")
    warmup_steps: int = 100
    warmup_from_zero: bool = False
    schedule: ScheduleName = "cosine"
    final_lr: float = 0.0
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        require(self.lr > 0 and isfinite(self.lr), "optim.lr", self.lr, "a number above 0")
        require(all(0 <= b < 1 for b in self.betas), "optim.betas", self.betas, "numbers from 0 to below 1")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "at least 0")
        factors = all(factor >= 0 for _, factor in self.lr_factors)
        require(factors, "optim.lr_factors", self.lr_factors, "factors of at least 0")
        require(0 <= self.momentum < 1, "optim.momentum", self.momentum, "a number from 0 to below 1")
        require(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, "at least 0")
        require(0 <= self.final_lr <= 1, "optim.final_lr", self.final_lr, "a number from 0 to 1")
        require(self.clip_norm > 0, "optim.clip_norm", self.clip_norm, "a number above 0")

    def learning_rate(self, step: int, steps: int) -> float:
        """Learning rate of step ``step`` (from 0) of ``steps``: linear warm-up, then cosine or constant."""
        if step < self.warmup_steps:
            return self.lr * (step if self.warmup_from_zero else step + 1) / self.warmup_steps
        match self.schedule:
            case "constant":
                return self.lr
            case "cosine":
                done = min(1.0, (step - self.warmup_steps) / max(1, steps - self.warmup_steps))
                return self.lr * (self.final_lr + (1 - self.final_lr) * 0.5 * (1 + cos(pi * done)))

    def lr_factor(self, name: str) -> float:
        """Factor of the learning rate of a parameter."""
        return next((factor for part, factor in self.lr_factors if part in name), 1.0)


@dataclass(frozen=True)
class EmaConfig:
    """Moving average of the weights.

    Args:
        decay: largest decay of one step.
        power: after ``n`` updates the decay is ``1 - (1 + n) ** -power``, up to ``decay``.
        precision: what the averages are kept in. ``fp16`` and ``bf16`` halve their memory, and are rounded up or down
            at random, since updates below the spacing of their numbers would be lost otherwise. Whatever the decay,
            that leaves noise of ``sqrt(spacing * distance / 2)`` in averages at some mean distance from the weights:
            in those of a small reconstructor 0.15 % with fp16 and 0.55 % with bf16, which cost it 0.000 and 0.007 dB.

    Raises:
        ValueError: for a number out of range.
    """

    decay: float = 0.999
    power: float = 0.75
    precision: AveragePrecision = "fp32"

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, "ema.decay", self.decay, "a number from 0 to below 1")
        require(self.power > 0, "ema.power", self.power, "a number above 0")


@dataclass(frozen=True)
class TrainerConfig:
    """One run of the trainer.

    Args:
        steps: optimiser steps of the whole run; the schedule ends there.
        seed: of initial weights and noise; the same seed repeats the run.
        optim: optimiser and learning rate.
        ema: moving average of the weights.
        precision: ``bf16`` is autocast, ``auto`` means it where the device is faster in it; weights and optimiser
            stay fp32.
        device: ``auto`` takes the GPU when there is one.
        accumulation: batches summed up to one optimiser step.
        gradient_checkpointing: compute the activations of blocks again in the backward pass instead of keeping them.
        compile: whether the trained network goes through ``torch.compile``.
        sharded: split weights, gradients, moments and averages over the processes (FSDP) where they do not fit one
            GPU, instead of keeping all of them in each; of denoisers, ControlNets and reconstructors, with AdamW.
        workers: processes that read and decode batches; 0 for a thread. By default one a spare core, at most 8, where a
            GPU trains, and a thread where the cores train.
        prefetch: batches prepared ahead by the thread or by each worker; 0 prepares them in line, without a thread.
        checkpoint_minutes: minutes between checkpoints.
        checkpoint_steps: steps between further checkpoints; 0 for those by the clock alone.
        keep_checkpoints: how many of the newest stay on disk.
        evaluate_every: steps between evaluations; 0 for one at the end only.
        log_every: steps between lines in ``metrics.jsonl``, each the mean over its window.
        max_minutes: stop with a checkpoint after this time; the schedule is still that of ``steps``.
        allow_changes: continue a run with other fields than it was started with; the record keeps both.
        tracker: where figures and images go besides metrics.jsonl, through accelerate.

    Raises:
        ValueError: for a number out of range, or a sharded network with another optimiser than AdamW.
    """

    steps: int = 10_000
    seed: int = 0
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    precision: Precision = "auto"
    device: Device = "auto"
    accumulation: int = 1
    gradient_checkpointing: bool = False
    compile: bool = False
    sharded: bool = False
    workers: int | None = None
    prefetch: int = 2
    checkpoint_minutes: float = 5.0
    checkpoint_steps: int = 0
    keep_checkpoints: int = 2
    evaluate_every: int = 500
    log_every: int = 10
    max_minutes: float | None = None
    allow_changes: bool = False
    tracker: TrackerName = "tensorboard"

    def __post_init__(self) -> None:
        require_at_least(1, self, "steps", "accumulation", "keep_checkpoints", "log_every")
        require_at_least(
            0, self, "seed", "prefetch", "checkpoint_minutes", "checkpoint_steps", "evaluate_every"
        )
        require(self.seed < 2**63, "seed", self.seed, "a number of 63 bits")
        require(self.workers is None or self.workers >= 0, "workers", self.workers, "at least 0")
        whole = self.sharded and self.optim.name != "adamw"
        require(not whole, "optim.name", self.optim.name, "adamw, which alone works on a sharded network")
        require(self.max_minutes is None or self.max_minutes > 0, "max_minutes", self.max_minutes, "above 0")
