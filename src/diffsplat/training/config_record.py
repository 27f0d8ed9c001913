"""The record of a run: with which configuration every part of it was trained."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffsplat.errors import InvalidInputError
from diffsplat.io.json_files import read_json, write_json

logger = logging.getLogger(__name__)

RECORD_FILE = "config.json"
CHANGES_FILE = "config_changes.json"
_REMEDY = "begin the run in another folder"

_NEUTRAL = frozenset(
    (
        *("allow_changes", "checkpoint_minutes", "checkpoint_steps", "device", "gradient_checkpointing"),
        *("keep_checkpoints", "max_minutes", "prefetch", "workers", "data_cache_gb", "tracker"),
        "latent_space",  # follows from the network
    )
)
"""Fields that may differ from one start to the next: they do not change what is trained."""
_PLACES = frozenset(
    f"folders.{name}" for name in ("out", "reconstructor", "autoencoder", "text_encoder", "start_from")
)
"""Folders that may have moved from one start to the next."""


def write_record(
    out: Path, record: Mapping[str, Any], *, resumed_at: int | None = None, allow_changes: bool = False
) -> None:
    """Write the configuration of a run, or compare it with the one that the run began with.

    ``config.json`` is the configuration that is in force. Where it was changed on the way, ``config_changes.json``
    lists every change with the step from which on it holds and the value before, so that the configuration of each
    part can be told. Folders may have moved; the digests of the networks in them are part of the configuration.

    Args:
        out: folder of the run.
        record: the configuration; paths in it are written as text.
        resumed_at: finished steps of the checkpoint that the run continues from; None for a new run.
        allow_changes: accept another configuration than before.

    Raises:
        InvalidInputError: for a continued run with a changed field that was not allowed; the message lists them.
    """
    path = out / RECORD_FILE
    current = json.loads(json.dumps(record, default=str))
    if resumed_at is None:
        (out / CHANGES_FILE).unlink(missing_ok=True)
    elif path.is_file():
        # Records of earlier versions lack the number of processes and the digests.
        added = {name: current[name] for name in ("processes", "networks") if name in current}
        changes = changed_fields({**added, **read_json(path, _REMEDY)}, current)
        refused = {name: values for name, values in changes.items() if name not in _PLACES}
        if refused and not allow_changes:
            listed = "; ".join(f"{name} was {old!r} and is {new!r}" for name, (old, new) in refused.items())
            raise InvalidInputError(
                f"the run in {str(out)!r} was started with another configuration: {listed}. Expected the same, another "
                "--out, or --allow-changes, which keeps both in the record"
            )
        if changes:
            _append_changes(out / CHANGES_FILE, resumed_at, changes)
            logger.warning("from step %d on: %s", resumed_at, ", ".join(changes))
    write_json(current, path)


def read_record(out: Path) -> dict[str, Any]:
    """The configuration of a run that is in force; empty where there is no run."""
    path = out / RECORD_FILE
    return read_json(path, _REMEDY) if path.is_file() else {}


def changed_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Old and new value of every field that differs and matters, by its dotted name; None for an absent one.

    A record from before an option existed counts as having it off, or in full precision.
    """
    old, new = _flattened(before), _flattened(after)
    added = {name: value for name, value in new.items() if name not in old}
    old |= {name: value for name, value in added.items() if value is False or value == "fp32"}
    names = [name for name in {**old, **new} if name.rpartition(".")[2] not in _NEUTRAL]
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def _append_changes(path: Path, step: int, changes: Mapping[str, tuple[Any, Any]]) -> None:
    entries = read_json(path, _REMEDY)["changes"] if path.is_file() else []
    entry = {"from_step": step, "before": {name: old for name, (old, _) in changes.items()}}
    write_json({"changes": [*entries, entry]}, path)


def _flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
