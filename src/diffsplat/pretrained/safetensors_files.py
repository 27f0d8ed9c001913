"""Weights in safetensors files, whole or in shards, put into a network without a second copy of them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from diffsplat.errors import InvalidInputError, MissingFileError, explained_errors
from diffsplat.pretrained.release_layout import PICKLES, choose_weights, is_index, shard_names

ModuleT = TypeVar("ModuleT")


@dataclass(frozen=True)
class WeightFiles:
    """Safetensors files of one network; only their headers were read.

    Args:
        folder: that they are in.
        entries: for every weight its file and shape.
    """

    folder: Path
    entries: Mapping[str, tuple[Path, tuple[int, ...]]]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight.

        Raises:
            ValueError: when the files lack it.
        """
        if name not in self.entries:
            raise InvalidInputError(
                f"{str(self.folder)!r} lacks the weight {name}: it holds another network or an incomplete "
                "download, expected the released files"
            )
        return self.entries[name][1]

    def shards(self, dtype: torch.dtype | None = None) -> Iterator[dict[str, Tensor]]:
        """The weights, one file at a time.

        Args:
            dtype: what floating-point weights are converted to; as stored by default.
        """
        for path in sorted({path for path, _ in self.entries.values()}):
            with _opened(path) as file:
                names = [name for name, (holder, _) in self.entries.items() if holder == path]
                yield {name: _converted(file.get_tensor(name), dtype) for name in names}


def find_weights(folder: str | Path, stem: str) -> WeightFiles:
    """Look for ``STEM.safetensors``, shards with an index, or a variant such as ``STEM.fp16.safetensors``.

    Raises:
        FileNotFoundError: when there are no weights, or a shard is missing; the message names it.
        ValueError: when a file is damaged, does not fit its index, or only pickled weights are there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"there is no folder {str(folder)!r}, expected one with {stem}.safetensors")
    chosen = choose_weights([path.name for path in folder.iterdir()], stem)
    index = [name for name in chosen if is_index(name)]
    if index:
        return WeightFiles(folder, _sharded(folder / index[0]))
    if len(chosen) == 1:
        return WeightFiles(folder, _entries(folder / chosen[0]))
    raise _absent(folder, stem, sharded=bool(chosen))


def build(make: Callable[[], ModuleT], weights: WeightFiles, dtype: torch.dtype | None = None) -> ModuleT:
    """Make a network without memory for its weights, and give it those of the files.

    Buffers that no file holds stay without memory: see :func:`hollow_buffers`.

    Args:
        make: makes the network.
        weights: from :func:`find_weights`.
        dtype: what floating-point weights are converted to; as stored by default.

    Raises:
        ValueError: when a weight is missing, unknown, or of another shape.
    """
    with torch.device("meta"):
        network = make()
    module = cast(nn.Module, network)
    require_same_weights(module, weights)
    for shard in weights.shards(dtype):
        module.load_state_dict(shard, strict=False, assign=True)
    module.eval()
    return network


def require_same_weights(network: nn.Module, weights: WeightFiles) -> None:
    """Check names and shapes.

    Raises:
        ValueError: for the first weight that differs.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: shape for name, (_, shape) in weights.entries.items()}
    where = str(weights.folder)
    missing, unknown = sorted(expected.keys() - found), sorted(found.keys() - expected)
    if missing or unknown:
        kind = type(network).__name__
        raise InvalidInputError(
            f"{where!r} does not hold a {kind} of its configuration: {_some('lacks', missing)}"
            f"{' and ' if missing and unknown else ''}{_some('has unknown', unknown)}; "
            "download the folder again or correct its config.json"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise InvalidInputError(
                f"the weight {name} in {str(weights.entries[name][0])!r} has the shape {found[name]}, expected "
                f"{shape}: the file and its configuration do not belong together, download both again"
            )


def hollow_buffers(network: nn.Module) -> list[str]:
    """Names of the buffers without memory: the ones that are computed and never stored."""
    return [name for name, buffer in network.named_buffers() if buffer.is_meta]


def _sharded(index: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    holders = shard_names(index)
    entries: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for name in sorted(set(holders.values())):
        shard = index.parent / name
        if not shard.is_file():
            raise MissingFileError(
                f"the shard {str(shard)!r} of {index.name!r} is missing, download it again"
            )
        entries.update(_entries(shard))
    absent = sorted(holders.keys() - entries)
    if absent:
        raise InvalidInputError(
            f"the shards of {str(index)!r} lack {absent[0]} and {len(absent) - 1} other weights, download them "
            "again"
        )
    return entries


def _entries(path: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    with _opened(path) as file:
        return {name: (path, tuple(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; its length is checked against its header."""
    failure = f"{str(path)!r} is truncated or not a safetensors file, delete it and download it again"
    with explained_errors(failure, SafetensorError), safe_open(path, framework="pt") as file:
        yield file


def _converted(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)


def _absent(folder: Path, stem: str, *, sharded: bool) -> OSError | ValueError:
    if sharded:
        return MissingFileError(
            f"the index of the shards in {str(folder)!r} is missing, expected {stem}.safetensors.index.json: "
            "download it again"
        )
    pickled = sorted(path for path in folder.iterdir() if path.suffix in PICKLES)
    if pickled:
        return InvalidInputError(
            f"{str(pickled[0])!r} is a pickle, which can run code and is never loaded: convert it to "
            f"{stem}.safetensors or download that file"
        )
    return MissingFileError(f"{str(folder)!r} has no weights, expected {stem}.safetensors: download it again")


def _some(verb: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"it {verb} {names[0]}{more}"
