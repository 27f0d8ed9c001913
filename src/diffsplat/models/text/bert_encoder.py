"""The encoder of BERT (Devlin et al. 2019) as torch's own transformer, without the pooling layer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from diffsplat.errors import require
from diffsplat.models.network_base_class import UninitialisedLayers, require_names


@dataclass(frozen=True)
class BertConfig:
    """Sizes of the encoder, under the names of a ``config.json`` of transformers.

    Raises:
        ValueError: for another activation than the exact GELU.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    hidden_act: str = "gelu"

    def __post_init__(self) -> None:
        require(self.hidden_act == "gelu", "the text encoder's hidden_act", repr(self.hidden_act), "'gelu'")

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The entries of a ``config.json`` that matter here."""
        return cls(**{entry.name: stored[entry.name] for entry in fields(cls) if entry.name in stored})


class BertEncoder(nn.Module):
    """Embeddings of word pieces and a post-norm transformer over them.

    Args:
        config: sizes.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        width, eps = config.hidden_size, config.layer_norm_eps
        self.words = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.max_position_embeddings, width)
        self.types = nn.Embedding(config.type_vocab_size, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        layer = nn.TransformerEncoderLayer(
            width,
            config.num_attention_heads,
            config.intermediate_size,
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=eps,
            batch_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.num_hidden_layers, enable_nested_tensor=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """``[B, T, D]`` vectors, of no meaning on padding.

        Args:
            ids: ``[B, T]`` word-piece numbers.
            mask: ``[B, T]`` bool, False on padding.
        """
        embedded = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types.weight[0]
        return self.layers(self.norm(embedded), src_key_padding_mask=~mask)

    @classmethod
    def from_bert_state(cls, config: BertConfig, state: Mapping[str, Tensor]) -> Self:
        """An encoder in evaluation mode with weights under the names of transformers.

        Raises:
            ValueError: for a weight that is missing or unknown.
            RuntimeError: for one of another shape.
        """
        with UninitialisedLayers():
            encoder = cls(config)
        stacks = dict(encoder._bert_names())
        require_names(state, [name for names in stacks.values() for name in names], "the text encoder")
        stacked = {
            own: torch.cat([state[name] for name in names]) if names[1:] else state[names[0]]
            for own, names in stacks.items()
        }
        encoder.load_state_dict(stacked, assign=True)
        return encoder.eval()

    def bert_state(self) -> dict[str, Tensor]:
        """The weights on the CPU under the names of transformers."""
        own = {name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}
        return {
            name: part
            for stacked, names in self._bert_names()
            for name, part in zip(names, own[stacked].chunk(len(names)), strict=True)
        }

    def _bert_names(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Names of the weights here, each with its name in transformers; three are stacked to one ``in_proj``."""
        yield "words.weight", ("embeddings.word_embeddings.weight",)
        yield "positions.weight", ("embeddings.position_embeddings.weight",)
        yield "types.weight", ("embeddings.token_type_embeddings.weight",)
        for kind in ("weight", "bias"):
            yield f"norm.{kind}", (f"embeddings.LayerNorm.{kind}",)
            for number in range(self.config.num_hidden_layers):
                own, bert = f"layers.layers.{number}.", f"encoder.layer.{number}."
                projections = (f"{bert}attention.self.{name}.{kind}" for name in ("query", "key", "value"))
                yield f"{own}self_attn.in_proj_{kind}", tuple(projections)
                yield f"{own}self_attn.out_proj.{kind}", (f"{bert}attention.output.dense.{kind}",)
                yield f"{own}norm1.{kind}", (f"{bert}attention.output.LayerNorm.{kind}",)
                yield f"{own}linear1.{kind}", (f"{bert}intermediate.dense.{kind}",)
                yield f"{own}linear2.{kind}", (f"{bert}output.dense.{kind}",)
                yield f"{own}norm2.{kind}", (f"{bert}output.LayerNorm.{kind}",)
