"""Encoded prompts in a file, so that a model can be used without its text encoder."""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffsplat.errors import InvalidInputError, explained_errors
from diffsplat.io.file_access import atomic_path, require_readable
from diffsplat.models.text.text_condition import PromptEncoder, TextCondition

_FORMAT = "diffsplat-prompts-1"


class StoredPrompts:
    """Prompts that were encoded before; a text encoder without networks.

    Args:
        conditions: by prompt.
        model: name of the model whose encoder it was.
        clip_skip: layers of CLIP that were left out.
    """

    def __init__(
        self, conditions: dict[str, TextCondition], model: str = "", clip_skip: int | None = None
    ) -> None:
        self.conditions = dict(conditions)
        self.model = model
        self.clip_skip = clip_skip

    @classmethod
    def encode(cls, encoder: PromptEncoder, texts: Iterable[str], model: str = "") -> Self:
        """Encode texts one at a time, so that none depends on the others through rounding."""
        return cls({text: encoder([text]) for text in dict.fromkeys(texts)}, model)

    def __call__(self, texts: list[str]) -> TextCondition:
        """What was stored for the texts, stacked; a text that was not encoded is refused.

        Raises:
            ValueError: naming the text.
        """
        for text in texts:
            if text not in self.conditions:
                known = ", ".join(map(repr, self.conditions))
                raise InvalidInputError(f"the prompt {text!r} was not encoded, expected one of: {known}")
        return TextCondition.concatenate([self.conditions[text] for text in texts])

    def to(self, device: torch.device | str) -> Self:
        """Move to a device, in place."""
        self.conditions = {text: condition.to(device) for text, condition in self.conditions.items()}
        return self

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write a safetensors file, complete or not at all."""
        tensors: dict[str, Tensor] = {}
        metadata = {"format": _FORMAT, "model": self.model}
        if self.clip_skip is not None:
            metadata["clip_skip"] = str(self.clip_skip)
        for number, (text, condition) in enumerate(self.conditions.items()):
            metadata[f"prompt.{number}"] = text
            for name in ("tokens", "mask", "pooled"):
                value = getattr(condition, name)
                if value is not None:
                    tensors[f"{number}.{name}"] = value.cpu().contiguous()
        with atomic_path(path, force=force) as temporary:
            save_file(tensors, temporary, metadata)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: there is no file, or it holds something else.
        """
        failure = f"{str(path)!r} holds no encoded prompts"
        with (
            explained_errors(failure, SafetensorError),
            safe_open(require_readable(path), framework="pt") as file,
        ):
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != _FORMAT:
            raise InvalidInputError(f"{failure}, expected a file of 'diffsplat encode'")
        prompts = [name for name in metadata if name.startswith("prompt.")]
        conditions = {
            metadata[name]: _condition(tensors, name.removeprefix("prompt."), path)
            for name in sorted(prompts, key=lambda name: int(name.removeprefix("prompt.")))
        }
        skipped = metadata.get("clip_skip")
        return cls(conditions, metadata.get("model", ""), None if skipped is None else int(skipped))


def _condition(tensors: dict[str, Tensor], number: str, path: Path) -> TextCondition:
    parts = {name: tensors.get(f"{number}.{name}") for name in ("mask", "pooled")}
    if f"{number}.tokens" not in tensors:
        raise InvalidInputError(f"{str(path)!r} lacks the tokens of its prompt {number}")
    return TextCondition(tokens=tensors[f"{number}.tokens"], **parts)
