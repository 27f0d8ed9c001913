"""A small sentence encoder whose weights are stored as 8-bit integers."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from diffsplat.errors import MissingFileError, require
from diffsplat.io.file_access import make_folder
from diffsplat.io.json_files import read_json, write_json
from diffsplat.models.text.bert_encoder import BertConfig, BertEncoder
from diffsplat.models.text.text_condition import TextCondition

logger = logging.getLogger(__name__)

MAX_TOKENS = 32
"""Word pieces of a prompt that are read, the two markers included."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"

_SCALE_SUFFIX = ".row_scale"


class TextEncoder(nn.Module):
    """A BERT encoder and its tokenizer; prompts in, one vector a word piece out.

    Args:
        bert: the encoder.
        tokenizer: word pieces with the begin and end markers in its post-processor.
        max_tokens: ``T``, the length that every prompt is padded or cut to.
    """

    def __init__(self, bert: BertEncoder, tokenizer: Tokenizer, max_tokens: int = MAX_TOKENS) -> None:
        super().__init__()
        limit = bert.config.max_position_embeddings
        expected = f"3 to {limit}, the positions of the encoder"
        require(2 < max_tokens <= limit, "max_tokens", max_tokens, expected)
        self.bert = bert.eval().requires_grad_(False)
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def device(self) -> torch.device:
        """Where the encoder runs."""
        return self.bert.norm.weight.device

    @torch.no_grad()
    def forward(self, texts: list[str]) -> TextCondition:
        """Encode prompts, always in float32.

        Args:
            texts: ``B`` prompts; an empty one gives the two markers. What is beyond ``max_tokens`` word
                pieces is cut off, with a warning.

        Returns:
            Tokens ``[B, T, D]``, zero where the mask ``[B, T]`` is False; the mask is True on the prompt's word
            pieces and its two markers. Pooled are unit sentence vectors ``[B, D]``: the mean over the tokens.
        """
        ids, mask = self.tokenize(texts)
        longest = int(mask.sum(dim=1).max())
        with torch.autocast(self.device.type, enabled=False):
            encoded = self.bert(ids[:, :longest], mask[:, :longest])
        hidden = functional.pad(encoded, (0, 0, 0, self.max_tokens - longest))
        tokens = hidden * mask.unsqueeze(-1)
        sentence = functional.normalize(tokens.sum(1) / mask.sum(1, keepdim=True), dim=-1)
        return TextCondition(tokens=tokens, mask=mask, pooled=sentence)

    def is_one_piece(self, word: str) -> bool:
        """Whether the vocabulary holds the whole word, as it does common ones but no misspelt ones."""
        return self._tokenizer.token_to_id(word) is not None

    def tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """``[B, T]`` word-piece numbers and ``[B, T]`` bool mask."""
        ids = torch.full((len(texts), self.max_tokens), self.bert.config.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for row, encoding in enumerate(self._tokenizer.encode_batch(texts)):
            pieces = encoding.ids
            if len(pieces) > self.max_tokens:
                logger.warning(
                    "only the first %d of %d word pieces of the prompt are read: %.60s...",
                    *(self.max_tokens - 2, len(pieces) - 2, texts[row]),
                )
                pieces = [*pieces[: self.max_tokens - 1], pieces[-1]]
            ids[row, : len(pieces)] = torch.tensor(pieces)
            mask[row, : len(pieces)] = True
        return ids.to(self.device), mask.to(self.device)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what :meth:`save_pretrained` wrote and bring the weights back to float32."""
        paths = _require_files(Path(folder))
        stored = read_json(paths[0])
        config = BertConfig.from_json(stored["bert"])
        bert = BertEncoder.from_bert_state(config, dequantize(load_file(paths[1])))
        return cls(bert, Tokenizer.from_file(str(paths[2])), stored["max_tokens"])

    def save_pretrained(self, folder: str | Path) -> None:
        """Write configuration, tokenizer and weights, matrices as int8 with one scale a row."""
        target = make_folder(folder)
        config = asdict(self.bert.config)
        stored = {"_class_name": type(self).__name__, "max_tokens": self.max_tokens, "bert": config}
        write_json(stored, target / CONFIG_FILE)
        self._tokenizer.save(str(target / TOKENIZER_FILE), pretty=False)
        packed = quantize(self.bert.bert_state())
        (target / WEIGHTS_FILE).write_bytes(save(packed, metadata={"format": "pt"}))


def quantize(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices to int8 with a float32 scale per row (largest magnitude = 127), everything else to float32."""
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.ndim != 2:
            packed[name] = tensor.float().contiguous()
            continue
        scale = tensor.float().abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        packed[name] = (tensor.float() / scale).round().to(torch.int8)
        packed[name + _SCALE_SUFFIX] = scale.squeeze(1)
    return packed


def dequantize(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`quantize`, up to rounding; float32."""
    return {
        name: tensor.float() * packed[name + _SCALE_SUFFIX].unsqueeze(1)
        if tensor.dtype == torch.int8
        else tensor.float()
        for name, tensor in packed.items()
        if not name.endswith(_SCALE_SUFFIX)
    }


def _require_files(folder: Path) -> tuple[Path, Path, Path]:
    """Paths of configuration, weights and tokenizer, all of them present."""
    paths = (folder / CONFIG_FILE, folder / WEIGHTS_FILE, folder / TOKENIZER_FILE)
    for path in paths:
        if not path.is_file():
            raise MissingFileError(f"the text encoder's file {path} is missing")
    return paths
