"""The 8-bit text encoder against outputs recorded from the float32 original by sentence-transformers 6.2."""

import json
import logging
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers.models.bert.configuration_bert import BertConfig as StockConfig
from transformers.models.bert.modeling_bert import BertModel

from diffsplat.models.text.bert_encoder import BertConfig, BertEncoder
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder, dequantize, quantize

SHIPPED = Path(str(files("diffsplat"))) / "weights" / "mini" / "text_encoder"
RECORDED = Path(__file__).parent / "recorded" / "minilm_l6_v2.npz"


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.from_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(RECORDED) as stored:
        return {name: stored[name] for name in stored.files}


def test_sentence_vectors_agree_with_the_original(encoder, recorded):
    pooled = encoder([str(prompt) for prompt in recorded["prompts"]]).pooled
    cosine = (pooled * torch.from_numpy(recorded["pooled"]).float()).sum(1)
    words = torch.tensor([len(str(prompt).split()) for prompt in recorded["prompts"]])
    assert cosine[words > 1].min() > 0.999
    assert cosine.min() > 0.995  # the empty prompt has only its two markers to average over


def test_every_prompt_finds_its_own_original_first(encoder, recorded):
    pooled = encoder([str(prompt) for prompt in recorded["prompts"]]).pooled
    found = (pooled @ torch.from_numpy(recorded["pooled"]).float().T).argmax(dim=1)
    assert found.tolist() == list(range(len(found)))


def test_tokens_agree_with_the_original(encoder, recorded):
    text = str(recorded["sentence"])
    ids, mask = encoder.tokenize([text])
    count = len(recorded["ids"])
    assert ids[0, :count].tolist() == recorded["ids"].tolist()
    assert mask[0].tolist() == [True] * count + [False] * (encoder.max_tokens - count)
    tokens = encoder([text]).tokens[0, :count]
    original = torch.from_numpy(recorded["tokens"]).float()
    assert torch.nn.functional.cosine_similarity(tokens, original, dim=-1).min() > 0.998


def stock_bert(config: BertConfig) -> BertModel:
    return BertModel(StockConfig(**asdict(config)), add_pooling_layer=False).eval()


def largest_difference(stock: BertModel, own: BertEncoder) -> float:
    """Between their outputs on texts of all lengths, padding aside."""
    generator = torch.Generator().manual_seed(0)
    length = own.config.max_position_embeddings
    ids = torch.randint(own.config.vocab_size, (length, length), generator=generator)
    mask = torch.ones(length, length).tril().bool()
    with torch.no_grad():
        expected = stock(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        found = own(ids, mask)
    return float((found - expected)[mask].abs().max())


def test_random_weights_encode_as_in_transformers():
    config = BertConfig(
        vocab_size=50,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=9,
        layer_norm_eps=0.1,
    )
    stock = stock_bert(config)
    with torch.no_grad():
        for number, parameter in enumerate(stock.parameters()):
            generator = torch.Generator().manual_seed(number)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    state = dict(stock.named_parameters())
    own = BertEncoder.from_bert_state(config, state)
    assert largest_difference(stock, own) < 1e-5
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.bert_state().items())


def test_the_shipped_weights_encode_as_in_transformers(encoder):
    stock = stock_bert(encoder.bert.config)
    stock.load_state_dict(dequantize(load_file(SHIPPED / "model.safetensors")))
    assert largest_difference(stock, encoder.bert) < 1e-5


def test_a_weight_that_is_missing_or_unknown_is_named(encoder):
    state = encoder.bert.bert_state()
    del state["embeddings.LayerNorm.bias"]
    with pytest.raises(ValueError, match=r"embeddings\.LayerNorm\.bias"):
        BertEncoder.from_bert_state(encoder.bert.config, state)


def test_another_activation_is_refused(encoder):
    with pytest.raises(ValueError, match="'gelu_new', expected 'gelu'"):
        replace(encoder.bert.config, hidden_act="gelu_new")


def test_shapes_and_padding(encoder):
    embedding = encoder(["", "a red armchair"])
    assert embedding.tokens.shape == (2, 32, 384)
    assert embedding.tokens.dtype == torch.float32
    assert embedding.mask.dtype == torch.bool
    assert embedding.mask.sum(1).tolist() == [2, 5]
    assert embedding.tokens[~embedding.mask].abs().max() == 0


def test_long_prompt_is_cut_with_a_warning(encoder, caplog):
    words = [f"word{number}" for number in range(40)]
    with caplog.at_level(logging.WARNING):
        ids, mask = encoder.tokenize([" ".join(words)])
    assert mask.all()
    assert ids[0, -1] == 102  # the end marker of the BERT vocabulary
    assert "only the first 30 of" in caplog.text


def test_quantization_error_is_at_most_half_a_step():
    generator = torch.Generator().manual_seed(0)
    state = {"matrix": torch.randn(7, 33, generator=generator), "bias": torch.randn(5, generator=generator)}
    state["matrix"][3] = 0
    packed = quantize(state)
    assert packed["matrix"].dtype == torch.int8
    back = dequantize(packed)
    step = state["matrix"].abs().amax(dim=1, keepdim=True) / 127
    assert ((back["matrix"] - state["matrix"]).abs() <= step / 2 + 1e-7).all()
    assert torch.equal(back["bias"], state["bias"])
    assert set(back) == set(state)


def test_save_and_load_repeat_bitwise(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    again = TextEncoder.from_pretrained(tmp_path)
    prompts = ["a blue taxi"]
    assert torch.equal(again(prompts).tokens, encoder(prompts).tokens)


def test_shipped_files_are_small():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 23.5e6


def test_missing_file_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        TextEncoder.from_pretrained(tmp_path)
