"""The processes of a run, through accelerate: one, or those that torchrun or accelerate launch started."""

import atexit
import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from diffsplat.errors import DiffSplatError, InvalidInputError, optional_package
from diffsplat.training.launched_errors import await_word

Device = Literal["auto", "cpu", "cuda"]
T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""How long a process waits for another: longer than an evaluation or a cache takes, which the main one makes alone.
The launcher notices a process that died at once."""


class LostProcessError(DiffSplatError):
    """Another process of the run has ended."""


class Processes:
    """The processes of a run. All of them call every method, in the same order.

    Args:
        device: ``auto`` takes the GPU when there is one.

    Raises:
        ValueError: for a GPU that is not there, or without accelerate.
    """

    def __init__(self, device: Device) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise InvalidInputError("device is cuda, which torch does not find here; expected cpu or auto")
        with optional_package("training", "accelerate", "train"):
            from accelerate import Accelerator
            from accelerate.utils import InitProcessGroupKwargs
        patience = InitProcessGroupKwargs(timeout=PATIENCE)
        cpu = device == "cpu" or not torch.cuda.is_available()
        self._accelerator: Any = Accelerator(cpu=cpu, kwargs_handlers=[patience])
        self.device: torch.device = self._accelerator.device
        self.count: int = self._accelerator.num_processes
        self.index: int = self._accelerator.process_index
        if self.count > 1:
            atexit.register(_disconnect)

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files."""
        return self.index == 0

    def spare_cores(self) -> int:
        """Cores that this process may have besides its own, at most 8; those of the machine are shared evenly."""
        together = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return max(0, min(8, len(os.sched_getaffinity(0)) // together - 1))

    def wait(self) -> None:
        """Wait until all are here."""
        self._accelerator.wait_for_everyone()

    def agreed(self, value: T) -> T:
        """The main process' value."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def gathered(self, value: T) -> list[T]:
        """The values of all, in the order of the processes."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])

    def means(self, scalars: Mapping[str, Tensor]) -> dict[str, float]:
        """Scalars averaged over the processes."""
        if not scalars:
            return {}
        stacked = torch.stack([value.reshape(()).to(self.device) for value in scalars.values()])
        if self.count > 1:
            stacked = self._accelerator.reduce(stacked, reduction="mean")
        return dict(zip(scalars, stacked.tolist(), strict=True))

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block, then the others do; when it fails there, they end without a word."""
        code = 0 if self.is_main else self.agreed(0)
        if code:
            await_word()
            raise SystemExit(code)
        try:
            yield
        except Exception as error:
            if self.is_main:
                self.agreed(2 if isinstance(error, DiffSplatError) else 1)
            raise
        if self.is_main:
            self.agreed(0)

    def once(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in the main process, which alone does it; when it fails, all end."""
        value: Any = None
        with self.main_first():
            if self.is_main:
                value = work()
        return self.agreed(value)

    def replicated(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are averaged over the processes in the backward pass."""
        return self._accelerator.prepare_model(module, device_placement=False) if self.count > 1 else module

    def no_sync(self, module: nn.Module) -> AbstractContextManager[None]:
        """Backward passes that leave gradients as they are, to be averaged with those of a later one."""
        return self._accelerator.no_sync(module)

    @contextmanager
    def explained_loss(self) -> Iterator[None]:
        """Turn what the network of processes raises when one of them has died into one sentence.

        Raises:
            LostProcessError: in its place.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not _is_broken_connection(error):
                raise
            raise LostProcessError(
                "another process of this run has ended; start the same command again, which continues from the newest "
                "checkpoint"
            ) from error


def _disconnect() -> None:
    """Leave the other processes: threads of a connection that is open at the end of Python abort the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        gc.collect()  # a module that was replicated holds the connection too


def _is_broken_connection(error: RuntimeError) -> bool:
    """Gloo's errors have no type of their own."""
    return isinstance(error, torch.distributed.DistError) or any(
        words in str(error) for words in ("gloo", "Connection closed by peer", "Connection reset by peer")
    )
