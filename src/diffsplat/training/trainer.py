"""The training loop: every stage goes through it, none changes it."""

import itertools
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from diffsplat.core.tensor_checks import NonFiniteError
from diffsplat.errors import InvalidInputError, require
from diffsplat.io.file_access import make_folder
from diffsplat.models.autocast import autocast
from diffsplat.training.batch_prefetch import thread_batches, worker_batches
from diffsplat.training.batch_tensors import batch_size, to_device
from diffsplat.training.checkpoints import (
    BrokenCheckpointError,
    Checkpoint,
    checkpoint_folder,
    checkpoint_step,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from diffsplat.training.config_record import write_record
from diffsplat.training.ema import Ema
from diffsplat.training.gradient_checkpointing import checkpoint_activations
from diffsplat.training.metrics_tracker import Tracker, require_tracker
from diffsplat.training.optimizers import Optimizers
from diffsplat.training.random_seeds import mixed_seed
from diffsplat.training.run_outcome import Outcome, Status, atomic_folder
from diffsplat.training.run_processes import Processes
from diffsplat.training.sharded_weights import as_unsharded, shard, split_like, whole, whole_tensors
from diffsplat.training.stages.stage_interface import BatchSource, Losses, Stage
from diffsplat.training.stop_signals import StopSignals
from diffsplat.training.trainer_config import TrainerConfig

logger = logging.getLogger(__name__)

MAX_SKIPPED = 20
_HOW_TO_GO_ON = (
    "lower optim.lr and run the command again with --allow-changes, which continues from the newest checkpoint, or "
    "look for broken data"
)


class DivergedError(RuntimeError):
    """Loss, gradients or weights are infinite or NaN."""


@dataclass
class _Progress:
    """Counters that a checkpoint holds besides tensors."""

    step: int = 0
    skipped_in_row: int = 0
    skipped: int = 0
    samples: int = 0
    seconds: float = 0.0
    window: dict[str, float] = field(default_factory=dict)
    window_count: int = 0

    def add(self, values: Mapping[str, float]) -> None:
        """Add the figures of one step to the window."""
        for name, value in values.items():
            self.window[name] = self.window.get(name, 0.0) + value
        self.window_count += 1

    def take_means(self) -> dict[str, float]:
        """Means over the window, which is reset; nothing when every step of it was skipped."""
        means = {name: value / self.window_count for name, value in self.window.items()}
        self.window, self.window_count = {}, 0
        return means


class _NonFiniteGuard(nn.Module):
    """A stage whose own refusal of NaN becomes a loss of NaN, so that every process skips the step.

    Args:
        stage: networks and loss.
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, batch: Any, step: int, /) -> Losses:
        """Loss of the stage."""
        try:
            return self.stage(batch, step)
        except NonFiniteError as error:
            logger.warning("%s", error)
            parameters = self.stage.network.parameters()
            return Losses(torch.nan * torch.stack([p.sum() for p in parameters]).sum())


class Trainer:
    """Fits a stage to a source of batches.

    Training continues from the newest checkpoint in ``out``. Every step seeds torch from the seed and
    its own number and asks the source for the batch of that number, so a continued run repeats an
    uninterrupted one: on the CPU in fp32 bit for bit. ``source.batch`` runs in a thread or in other processes ahead
    of its step, so it must draw from its own generators, never from torch's global one.

    Args:
        stage: networks and loss.
        source: batches by number.
        config: the run.
        out: folder of the run: record, checkpoints, metrics, weights.
        record: what to save as ``config.json`` with the number of processes; the trainer's configuration when
            absent.

    Raises:
        ValueError: for a stage without trainable parameters, or a device that is not there.
    """

    def __init__(
        self,
        stage: Stage,
        source: BatchSource[Any],
        config: TrainerConfig,
        out: Path,
        *,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.out = out
        self._processes = Processes(config.device)
        self._record = {"processes": self._processes.count, **(asdict(config) if record is None else record)}
        with self._processes.main_first():
            require_tracker(config.tracker)
        self._device = self._processes.device
        self._source = source
        self._stage = stage.to(self._device)
        network = stage.network.float()  # master weights
        if config.gradient_checkpointing:
            checkpoint_activations(network)
        if config.compile:
            network.compile()
        if config.sharded:
            self._shard(network)
        self._optimizers = Optimizers(network, config.optim)
        parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
        persistent = network.state_dict().keys()
        self._weights = {**parameters, **{n: b for n, b in network.named_buffers() if n in persistent}}
        self._ema = Ema(parameters, config.ema)
        self._progress = _Progress()
        self._tracker: Tracker | None = None
        self._evaluation: list[tuple[int, Any]] | None = None
        self._figures: dict[str, float] = {}
        guarded = _NonFiniteGuard(stage)
        self._model = guarded if config.sharded else self._processes.replicated(guarded)

    def _shard(self, network: nn.Module) -> None:
        count = self._processes.count
        require(count > 1, "sharded", True, "several processes, as torchrun starts them, or no sharding")
        kind = type(self._stage).__name__
        require(self._stage.shardable, "sharded", True, f"a network of another kind than that of a {kind}")
        shard(network, self._device, count)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.out / "checkpoints"

    @property
    def weights(self) -> Path:
        """Folder that the averaged weights are written to."""
        return self.out / "weights"

    def run(self) -> Outcome:
        """Train from the newest checkpoint to the last step, the time budget, or a signal.

        Raises:
            DivergedError: after 20 steps in a row without a finite loss and gradient, or when weights are not
                finite.
            ValueError: when the checkpoint belongs to another stage, or the run was started with another
                configuration.
        """
        resumed_at = self._continue()
        self._processes.once(
            lambda: write_record(
                self.out, self._record, resumed_at=resumed_at, allow_changes=self.config.allow_changes
            )
        )
        if self._progress.step >= self.config.steps and self._processes.once(self.weights.is_dir):
            return Outcome("finished", self._progress.step, {}, self.weights)
        with StopSignals() as signals, self._open_tracker() as self._tracker:
            status = self._loop(signals)
            if status == "finished":
                self._log_evaluation()
            if status != "interrupted":
                self.save_weights()
            self._save()
        return Outcome(status, self._progress.step, self._figures, self.weights)

    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Figures of the averaged weights over the source's evaluation batches, and images of the first.

        The processes share the batches. The images are the main one's.
        """
        if self._evaluation is None:
            numbered = list(enumerate(self._source.evaluation()))
            # All compute every batch of a network that they share.
            shared = not self.config.sharded
            self._evaluation = (
                numbered[self._processes.index :: self._processes.count] if shared else numbered
            )
        figures: list[dict[str, float]] = []
        images: dict[str, Tensor] = {}
        self._stage.eval()
        with self._ema.swapped(), torch.no_grad():
            for number, batch in self._evaluation:
                _seed(self.config.seed, number)
                with autocast(self._device, self.config.precision):
                    report = self._stage.evaluate(to_device(batch, self._device))
                figures.append(report.scalars)
                images = images or report.images
        self._train_mode()
        return _mean_figures(list(itertools.chain(*self._processes.gathered(figures)))), images

    def save_weights(self) -> None:
        """Write the averaged weights through the stage to :attr:`weights`, complete or not at all."""
        with self._ema.swapped():
            network = self._stage.network
            unsharded = nullcontext()
            if self.config.sharded:
                weights = whole_tensors(network.state_dict(), keep=self._processes.is_main)
                unsharded = as_unsharded(network, weights)
            with unsharded:
                self._processes.once(self._write_weights)

    def _write_weights(self) -> None:
        self._require_finite({"ema": self._stage.network.state_dict()})
        with atomic_folder(self.weights) as folder:
            self._stage.save_pretrained(folder)

    def _loop(self, signals: StopSignals) -> Status:
        config, progress = self.config, self._progress
        started = saved = time.monotonic()
        before = progress.seconds
        budget = math.inf if config.max_minutes is None else 60 * config.max_minutes
        self._train_mode()

        with self._batches() as batches:
            while progress.step < config.steps:
                self._step(batches)
                progress.seconds = before + time.monotonic() - started
                if progress.step == config.steps:
                    break
                if config.evaluate_every and progress.step % config.evaluate_every == 0:
                    self._log_evaluation()
                now = time.monotonic()
                due = now - saved >= 60 * config.checkpoint_minutes
                due = due or bool(config.checkpoint_steps and progress.step % config.checkpoint_steps == 0)
                interrupted, late, due = self._any_process(signals.received, now - started >= budget, due)
                if interrupted or late:
                    return "interrupted" if interrupted else "out_of_time"
                if due:
                    self._save()
                    saved = time.monotonic()
        return "finished"

    def _batches(self) -> AbstractContextManager[Iterator[Any]]:
        """The batches of this process from the next step to the last."""
        config, processes = self.config, self._processes
        first, last = self._progress.step * config.accumulation, config.steps * config.accumulation
        numbers = range(first * processes.count + processes.index, last * processes.count, processes.count)
        workers = config.workers
        if workers is None:
            workers = processes.spare_cores() if self._device.type == "cuda" else 0
        if workers:
            return worker_batches(self._source.batch, numbers, workers, max(config.prefetch, 1))
        return thread_batches(self._source.batch, numbers, config.prefetch)

    def _step(self, batches: Iterator[Any]) -> None:
        config, progress = self.config, self._progress
        started = time.monotonic()
        lr = config.optim.learning_rate(progress.step, config.steps)
        values, samples = self._gradients(batches)
        progress.step += 1
        progress.samples += samples
        if all(math.isfinite(values[name]) for name in ("loss", "gradient_norm")):
            norm = torch.tensor(values["gradient_norm"], device=self._device)
            self._clip(norm)
            self._optimizers.step(lr)
            self._ema.update()
            progress.skipped_in_row = 0
            progress.add(values | {"step_seconds": time.monotonic() - started, "batch_size": samples})
        else:
            self._skip(values)
        self._optimizers.zero_grad()
        if self._tracker is not None:
            self._tracker.advance()
        if progress.step % config.log_every == 0 or progress.step == config.steps:
            self._log_window(lr)

    def _clip(self, norm: Tensor) -> None:
        """Scale gradients down to the greatest norm."""
        parameters, greatest = self._optimizers.parameters, self.config.optim.clip_norm
        if not self.config.sharded:
            clip_grads_with_norm_(parameters, greatest, norm)
            return
        scale = greatest / (float(norm) + 1e-6)
        for parameter in parameters:
            if scale < 1 and parameter.grad is not None:
                parameter.grad.mul_(scale)

    def _gradients(self, batches: Iterator[Any]) -> tuple[dict[str, float], int]:
        """Gradients of one step; its scalars, averaged over batches and processes, and its samples."""
        accumulation, processes = self.config.accumulation, self._processes
        sums: dict[str, Tensor] = {}
        samples = 0
        for part in range(accumulation):
            batch = to_device(next(batches), self._device)
            samples += batch_size(batch) * processes.count
            index = self._progress.step * accumulation + part
            _seed(self.config.seed, index * processes.count + processes.index)
            last = part == accumulation - 1
            with nullcontext() if last or self.config.sharded else processes.no_sync(self._model):
                with autocast(self._device, self.config.precision):
                    losses: Losses = self._model(batch, self._progress.step + 1)
                (losses.total / accumulation).backward()
            for name, value in {"loss": losses.total, **losses.parts}.items():
                scalar = value.detach().float() / accumulation
                sums[name] = sums[name] + scalar if name in sums else scalar
        gradients = [p.grad for p in self._optimizers.parameters if p.grad is not None]
        sums["gradient_norm"] = whole(get_total_norm(gradients)).float()
        values = processes.means({name: sums.pop(name) for name in ("loss", "gradient_norm")})
        # A process whose stage met NaN has no parts; then the step is skipped in all of them.
        if all(map(math.isfinite, values.values())):
            values |= processes.means(sums)
        return values, samples

    def _require_finite(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        for tensors in groups.values():
            for name, tensor in tensors.items():
                if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                    raise DivergedError(
                        f"training diverged: after step {self._progress.step} {name} is not finite, and no "
                        f"checkpoint is written; {_HOW_TO_GO_ON}"
                    )

    def _skip(self, values: Mapping[str, float]) -> None:
        progress = self._progress
        progress.skipped += 1
        progress.skipped_in_row += 1
        found = f"loss {values['loss']} and gradient norm {values['gradient_norm']}"
        if progress.skipped_in_row >= MAX_SKIPPED:
            raise DivergedError(
                f"training diverged: {MAX_SKIPPED} steps in a row up to {progress.step} were not finite "
                f"(the last has {found}); {_HOW_TO_GO_ON}"
            )
        logger.warning("step %d is skipped: %s", progress.step, found)

    def _log_window(self, lr: float) -> None:
        progress = self._progress
        means = progress.take_means()
        if not means or self._tracker is None:
            return
        seconds, size = means.pop("step_seconds"), means.pop("batch_size")
        means |= {
            "learning_rate": lr,
            "samples_per_second": size / seconds,
            "samples": progress.samples,
            "skipped": progress.skipped,
            "seconds": progress.seconds,
        }
        self._tracker.scalars("train", progress.step, means)

    def _log_evaluation(self) -> None:
        self._figures, images = self.evaluate()
        if self._tracker is not None:
            if self._figures:
                self._tracker.scalars("evaluation", self._progress.step, self._figures)
            self._tracker.images(self._progress.step, images)

    def _save(self) -> None:
        groups = {"weights": self._weights, "ema": self._ema.state(), "optimizer": self._optimizers.state()}
        keep = self._processes.is_main
        gathered = {name: whole_tensors(tensors, keep=keep) for name, tensors in groups.items()}
        self._processes.once(lambda: self._write_checkpoint(gathered))

    def _write_checkpoint(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        if self._tracker is not None:
            self._tracker.flush()
        self._require_finite(groups)
        counters = {**asdict(self._progress), "ema_updates": self._ema.updates}
        save_checkpoint(self.checkpoints, self._progress.step, groups, counters, self.config.keep_checkpoints)

    def _continue(self) -> int | None:
        """Take up the newest checkpoint, which all processes read; its step."""
        found: Checkpoint | None = None
        with self._processes.main_first():
            if self._processes.is_main:
                make_folder(self.out)
                found = newest_checkpoint(self.checkpoints)
        step = self._processes.agreed(None if found is None else found.step)
        if step is not None:
            with self._processes.main_first():
                self._restore(found or self._shared_checkpoint(step))
        return step

    def _shared_checkpoint(self, step: int) -> Checkpoint:
        """What the main process continues from, in another process."""
        folder = checkpoint_folder(self.checkpoints, step)
        try:
            return load_checkpoint(folder)
        except BrokenCheckpointError as error:
            raise InvalidInputError(
                f"process {self._processes.index} cannot read {str(folder)!r}, which the main process continues from; "
                "expected --out on a file system that all machines share"
            ) from error

    @torch.no_grad()
    def _restore(self, checkpoint: Checkpoint) -> None:
        saved = checkpoint.groups["weights"]
        for name, tensor in self._weights.items():
            if name not in saved or saved[name].shape != tensor.shape:
                found = tuple(saved[name].shape) if name in saved else "nothing"
                raise InvalidInputError(
                    f"the checkpoint in {self.checkpoints} has {found} for {name}, expected "
                    f"{tuple(tensor.shape)}; it belongs to another configuration of the stage"
                )
            tensor.copy_(split_like(saved[name], tensor))
        optimizer, ema = (
            {
                key: split_like(value, self._weights.get(key.rpartition("|")[0] or key))
                for key, value in group.items()
            }
            for group in (checkpoint.groups.get("optimizer", {}), checkpoint.groups["ema"])
        )
        self._optimizers.load_state(optimizer)
        counters = dict(checkpoint.counters)
        self._ema.load_state(ema, counters.pop("ema_updates"))
        self._progress = _Progress(**counters)
        logger.info("continuing %s from step %d", self.out, checkpoint.step)

    def _any_process(self, *conditions: bool) -> list[bool]:
        """Conditions that hold in some process, so that all do the same next."""
        if self._processes.count == 1:
            return list(conditions)
        flags = {str(index): torch.tensor(float(holds)) for index, holds in enumerate(conditions)}
        return [mean > 0 for mean in self._processes.means(flags).values()]

    def _train_mode(self) -> None:
        self._stage.eval()
        self._stage.network.train()

    def _open_tracker(self) -> AbstractContextManager[Tracker | None]:
        """In the main process."""
        if not self._processes.is_main:
            return nullcontext()
        return Tracker(self.out, self._progress.step, self.config.steps, self.config.tracker)


def is_finished(config: TrainerConfig, out: Path) -> bool:
    """Whether a run is at its last step; its weights were written before that checkpoint was."""
    steps = [checkpoint_step(folder) for folder in list_checkpoints(out / "checkpoints")]
    return (out / "weights").is_dir() and max(steps, default=0) >= config.steps


def _mean_figures(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each figure over the evaluation batches that have it."""
    names = dict.fromkeys(itertools.chain(*figures))
    return {name: mean(float(f[name]) for f in figures if name in f) for name in names}


def _seed(seed: int, index: int) -> None:
    """Seed torch's global generators from two numbers.

    :func:`torch.manual_seed` is not called: without a GPU it keeps a stack trace of every call for later.
    """
    mixed = mixed_seed(seed, index)
    torch.default_generator.manual_seed(mixed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(mixed)
