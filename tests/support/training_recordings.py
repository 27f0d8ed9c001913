"""Recorded training steps of the original implementation: their batches, networks and comparisons."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders import vae as diffusers_vae
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from diffsplat.core import Cameras, Views
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.splat_vae import SplatVAE
from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pretrained.released_networks import load_denoiser, load_reconstructor, load_splat_vae
from support.recordings import Recordings

TRAINING = Path(__file__).parents[1] / "parity" / "training"
INPUT_VIEWS = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordedStep:
    """One case of a recorded trainer.

    Args:
        name: of the case; what stands before a ``+`` names the case that has its forward tensors.
        facts: what the JSON file has of it.
        tensors: all of the safetensors file.
        parameters: names in the order of the recorded gradient norms.
    """

    name: str
    facts: dict[str, Any]
    tensors: dict[str, Tensor]
    parameters: list[str]

    def tensor(self, name: str) -> Tensor:
        own = f"{self.name}.{name}"
        return self.tensors[own if own in self.tensors else f"{self.name.split('+')[0]}.{name}"]

    def per_object(self, name: str, views: int) -> Tensor:
        return self.tensor(name).unflatten(0, (-1, views))

    def gradients(self) -> dict[str, Tensor]:
        prefix = f"{self.name}.grad."
        return {
            key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)
        }


class TrainingRecordings(Recordings):
    """The recorded files of training steps."""

    def step(self, file: str, name: str) -> RecordedStep:
        facts = self.json(f"{file}.json")
        tensors = self.tensors(file)
        case = facts.get(name, facts)
        index = int(case["grad_norms"].split("parameters[")[1][0]) if "grad_norms" in case else 0
        return RecordedStep(name, case, tensors, facts["parameters"][index])

    def views(self, objects: slice = slice(None)) -> Views:
        recorded = self.tensors("views")
        images = {key: recorded[key] / 255 for key in ("image", "mask", "normal", "coord", "depth")}
        size = images["image"].shape[-1]
        cameras = Cameras(recorded["C2W"], recorded["fxfycxcy"], width=size, height=size)
        return Views(**images, cameras=cameras).objects(objects)

    def reconstructor(self, folder: Path) -> GSRecon:
        self._place("gsrecon_weights", folder / "model.safetensors")
        heads = self.json("gsrecon_config.json")["num_heads"]
        return load_reconstructor(folder, heads=heads, dtype=torch.float32)

    def splat_vae(self, kind: str, folder: Path) -> SplatVAE:
        """``sd``, ``sdxl`` (the weights of ``sd``) or ``sd3``."""
        self._place(f"gsvae_{_weights_of(kind)}_weights", folder / "model.safetensors")
        config = self.json(f"gsvae_{kind}_config.json")
        return load_splat_vae(folder, image_vae=config, dtype=torch.float32).requires_grad_(False)

    def image_vae(self, kind: str) -> AutoencoderKL:
        """The image autoencoder, of which the encoder alone was recorded."""
        vae = AutoencoderKL(**self.json(f"gsvae_{kind}_config.json"))
        weights = self.tensors(f"image_vae_{_weights_of(kind)}_weights")
        found = vae.load_state_dict({key: value.float() for key, value in weights.items()}, strict=False)
        assert not found.unexpected_keys
        assert all(key.startswith(("decoder.", "post_quant_conv.")) for key in found.missing_keys)
        return vae.eval().requires_grad_(False)

    def denoiser(self, family: str, conditioning: str, folder: Path) -> Any:
        """``sd``, ``pas`` or ``sd3``, ``text`` or ``image``, without its views set."""
        recorded = self.json(f"denoiser_{family}_config.json")
        config = {"_class_name": recorded["class"], **recorded[conditioning]}
        (folder / "config.json").write_text(json.dumps(config))
        weights = self.tensors(f"denoiser_{family}_weights")
        replaced = {key: weights.pop(key) for key in list(weights) if key.startswith("image_model.")}
        if conditioning == "image":
            weights |= {key.removeprefix("image_model."): value for key, value in replaced.items()}
        save_file(weights, folder / "diffusion_pytorch_model.safetensors")
        return load_denoiser(folder, dtype=torch.float32)

    def text(self, family: str) -> tuple[TextCondition, TextCondition]:
        """The prompts of the objects, and the empty one."""
        recorded = self.tensors(f"conditions_{family}")

        def condition(sign: str) -> TextCondition:
            mask = recorded.get(f"{sign}prompt_attention_mask")
            pooled = recorded.get(f"{sign}pooled_prompt_embed")
            return TextCondition(
                recorded[f"{sign}prompt_embed"], None if mask is None else mask > 0.5, pooled
            )

        return condition(""), condition("negative_")

    def _place(self, name: str, path: Path) -> None:
        path.symlink_to(self.path(f"{name}.safetensors").resolve())


def _weights_of(kind: str) -> str:
    return "sd" if kind == "sdxl" else kind


def box_distance(first: Tensor, second: Tensor) -> Tensor:
    """What was recorded in place of LPIPS: the squared difference of 3 x 3 box means, ``[N]``."""
    blurred = (functional.avg_pool2d(image, 3, stride=1) for image in (first, second))
    one, other = blurred
    return (one - other).square().flatten(1).mean(dim=1)


@contextmanager
def posterior_noise(noise: Tensor) -> Iterator[None]:
    """Posteriors of diffusers' autoencoders draw this noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusers_vae, "randn_tensor", lambda *_args, **_kwargs: noise)
        yield


def gradients_of(network: nn.Module) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def check_number(name: str, computed: float | Tensor, recorded: float, tolerance: float) -> None:
    """A relative tolerance."""
    check_numbers(name, torch.as_tensor(computed).reshape(1), [recorded], tolerance)


def check_numbers(name: str, computed: Tensor, recorded: list[float], tolerance: float) -> None:
    """A relative tolerance for each of them."""
    expected = torch.tensor(recorded, dtype=torch.float64)
    assert computed.shape == expected.shape, name
    _check(name, float(((computed.detach().double() - expected) / expected).abs().max()), tolerance)


def check_tensor(name: str, computed: Tensor, recorded: Tensor, tolerance: float) -> None:
    """A tolerance relative to the largest entry."""
    assert computed.shape == recorded.shape, name
    recorded = recorded.double()
    _check(name, float((computed.detach().double() - recorded).abs().max() / recorded.abs().max()), tolerance)


def check_gradients(step: RecordedStep, computed: Mapping[str, Tensor | None], tolerance: float) -> None:
    """Norms of all gradients, relative to the largest, and the recorded whole gradients."""
    missing = torch.tensor(float("nan"), dtype=torch.float64)
    found = [computed[name] for name in step.parameters]
    norms = torch.stack([missing if part is None else part.double().norm() for part in found])
    recorded = step.tensor("grad_norms")
    assert torch.equal(norms.isnan(), recorded.isnan()), f"{step.name}: gradients of other parameters"
    check_tensor(f"{step.name} gradient norms", norms.nan_to_num(), recorded.nan_to_num(), tolerance)
    total = float(norms.nan_to_num().norm())
    check_number(f"{step.name} gradient norm", total, step.facts["grad_total_norm"], tolerance)
    for name, whole in step.gradients().items():
        part = computed[name]
        assert part is not None, name
        check_tensor(f"{step.name} gradient of {name}", part, whole, tolerance)


def _check(name: str, deviation: float, tolerance: float) -> None:
    logger.info("%s: %.2g of %.0g", name, deviation, tolerance)
    assert deviation <= tolerance, f"{name} deviates by {deviation:.3g}, expected at most {tolerance:g}"
