"""What a launcher's processes say when they end: each would print the same sentence, so one does.

The first to come says it. The others wait until it has, since a launcher kills all processes as soon as one has ended.
They agree through the key-value store that torchrun (and accelerate launch, which starts it) lends its processes.
"""

import os
import sys
from collections.abc import Callable
from datetime import timedelta

import torch
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

_PATIENCE = timedelta(seconds=10)


def launched_rank() -> int:
    """Number of this process among those of the launcher, before they know of each other."""
    return int(os.environ.get("RANK", "0"))


def say_once(say: Callable[[], None]) -> None:
    """Call ``say`` in the first process that asks; in the others, wait for that."""
    store = _shared_store()
    if store is None:
        if launched_rank() == 0 or torch.distributed.is_initialized():
            say()
    elif store.add(_key("asked"), 1) == 1:
        try:
            say()
        finally:
            sys.stderr.flush()
            store.set(_key("said"), "yes")
    else:
        _await_word(store)


def await_word() -> None:
    """Wait until another process has said why it ends."""
    store = _shared_store()
    if store is not None:
        _await_word(store)


def _await_word(store: TCPStore) -> None:
    try:
        store.wait([_key("said")], _PATIENCE)
    except RuntimeError:
        return  # the store or the other process has gone


def _key(name: str) -> str:
    """A launcher that starts its processes anew counts the attempts."""
    return f"diffsplat/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{name}"


def _shared_store() -> TCPStore | None:
    """The store of the launcher, or else of the first process, which is there once the processes are connected."""
    lent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not lent and not torch.distributed.is_initialized():
        return None
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return TCPStore(address, port, is_master=False, timeout=_PATIENCE)
    except (KeyError, RuntimeError):
        return None
