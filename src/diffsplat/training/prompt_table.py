"""Encoded captions of a data set on disk: encoded once, read through a memory map by every process."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from diffsplat.io.file_access import make_folder
from diffsplat.io.json_files import read_json, write_json
from diffsplat.models.text.text_condition import PromptEncoder, TextCondition
from diffsplat.training.run_outcome import atomic_folder

logger = logging.getLogger(__name__)

_ENCODED_AT_ONCE = 64


class PromptTable:
    """Encoded prompts by their texts, in half precision; a :class:`PromptEncoder` of the texts that it holds.

    Only tokens that count are stored: the table of an encoder with a mask is as long as its texts, not padded.

    Args:
        folder: from :meth:`open`.
    """

    def __init__(self, folder: Path) -> None:
        index = read_json(folder / "index.json")
        self._numbers = {text: number for number, text in enumerate(index["texts"])}
        self._masked = bool(index["masked"])
        self._rows: NDArray[np.int64] = np.load(folder / "rows.npy")
        stored = np.memmap(folder / "tokens.bin", np.float16, mode="r")
        self._tokens: NDArray[np.float16] = stored.reshape(-1, index["width"])
        pooled = folder / "pooled.npy"
        self._pooled: NDArray[np.float16] | None = (
            np.load(pooled, mmap_mode="r") if pooled.is_file() else None
        )

    @classmethod
    def open(
        cls, cache: Path, texts: Sequence[str], encoder: Callable[[], PromptEncoder], key: bytes
    ) -> "PromptTable":
        """The table of texts, from the cache where it has them; otherwise they are encoded by one process.

        Args:
            cache: folder of tables.
            texts: all that will be asked for, each once.
            encoder: makes the encoder, on the device that it computes on.
            key: changes with the encoder's weights.
        """
        digest = hashlib.sha256(key + json.dumps(list(texts)).encode()).hexdigest()[:16]
        folder = make_folder(cache) / digest
        with FileLock(cache / f".{digest}.lock"):
            if not (folder / "index.json").is_file():
                logger.info("encoding %d captions into %s", len(texts), folder)
                with atomic_folder(folder) as unfinished:
                    _encode(encoder(), texts, unfinished)
        return cls(folder)

    def __call__(self, texts: list[str]) -> TextCondition:
        """Conditions of texts, padded to the longest of them.

        Raises:
            KeyError: for a text that the table lacks.
        """
        numbers = [self._numbers[text] for text in texts]
        parts = [torch.from_numpy(self._read(number)).float() for number in numbers]
        longest = max(map(len, parts))
        tokens = torch.stack([_padded(part, longest) for part in parts])
        mask = torch.arange(longest) < torch.tensor([len(part) for part in parts])[:, None]
        pooled = None if self._pooled is None else torch.from_numpy(self._pooled[numbers]).float()
        return TextCondition(tokens, mask if self._masked else None, pooled)

    def _read(self, number: int) -> NDArray[np.float16]:
        start, count = self._rows[number]
        return np.array(self._tokens[start : start + count])


def _padded(tokens: Tensor, length: int) -> Tensor:
    return torch.cat([tokens, tokens.new_zeros(length - len(tokens), tokens.shape[1])])


@torch.no_grad()
def _encode(encoder: PromptEncoder, texts: Sequence[str], folder: Path) -> None:
    # Texts of one length together: a batch costs as much as its longest.
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    rows = np.zeros((len(texts), 2), np.int64)
    pooled: dict[int, Tensor] = {}
    masked, width, end = False, 0, 0
    with (folder / "tokens.bin").open("wb") as file:
        for start in tqdm(range(0, len(order), _ENCODED_AT_ONCE), unit="batch", desc="captions"):
            numbers = order[start : start + _ENCODED_AT_ONCE]
            condition = encoder([texts[number] for number in numbers]).to("cpu")
            masked, width = condition.mask is not None, condition.tokens.shape[-1]
            for place, number in enumerate(numbers):
                used = condition.tokens[place].half()
                if condition.mask is not None:
                    used = used[: int(condition.mask[place].sum())]
                if condition.pooled is not None:
                    pooled[number] = condition.pooled[place].half()
                file.write(used.numpy().tobytes())
                rows[number] = end, len(used)
                end += len(used)
    np.save(folder / "rows.npy", rows)
    if pooled:
        np.save(folder / "pooled.npy", torch.stack([pooled[number] for number in range(len(texts))]).numpy())
    write_json({"texts": list(texts), "masked": masked, "width": width}, folder / "index.json")
