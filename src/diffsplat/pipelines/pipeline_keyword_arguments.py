"""Keyword arguments of a call of the pipeline, split into generation options and tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from diffsplat.pipelines.generation_options import Generation
from diffsplat.pipelines.tensor_inputs import TensorInputs

_TENSORS = frozenset(field.name for field in fields(TensorInputs))
_OPTIONS = frozenset(field.name for field in fields(Generation))
_LISTS = {"seed": "seeds", "negative_prompt": "negative_prompts"}
"""Options that may be a list in Python, and the field for it."""
_NAMES_IN_DIFFUSERS = {
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "num_images_per_prompt": "count",
    "control_image": "control",
    "controlnet_conditioning_scale": "control_scale",
}
_NOT_HERE = {
    "height": "the size of the views is the model's",
    "width": "the size of the views is the model's",
    "output_type": "a call returns splats and latents, and renders with .render()",
    "return_dict": "a call returns a SplatOutput",
    "prompt_2": "every text encoder gets the same prompt",
    "prompt_3": "every text encoder gets the same prompt",
    "callback_on_step_end_tensor_inputs": "callback_on_step_end gets the latents",
}


def split_keyword_arguments(
    prompts: tuple[str, ...], options: Mapping[str, Any]
) -> tuple[Generation, TensorInputs]:
    """Options and tensors of a call.

    Raises:
        TypeError: for an unknown name; of one that diffusers has, it says how it is called here.
    """
    for name in options:
        if name not in _TENSORS and name not in _OPTIONS:
            raise TypeError(_explanation(name))
    tensors = {name: value for name, value in options.items() if name in _TENSORS}
    values: dict[str, Any] = {name: value for name, value in options.items() if name not in _TENSORS}
    for name, listed in _LISTS.items():
        if _is_list(values.get(name)):
            values[listed] = values.pop(name)
    for name, value in values.items():
        if _is_list(value):
            values[name] = tuple(_plain(value))
    return Generation(prompts=prompts, **values), TensorInputs(**tensors)


def _explanation(name: str) -> str:
    if name in _NAMES_IN_DIFFUSERS:
        return f"{name} is called {_NAMES_IN_DIFFUSERS[name]} here"
    if name in _NOT_HERE:
        return f"there is no option {name}: {_NOT_HERE[name]}"
    return f"there is no option {name!r}, expected one of: {', '.join(sorted(_OPTIONS | _TENSORS))}"


def _is_list(value: object) -> bool:
    return (isinstance(value, Sequence) and not isinstance(value, str)) or hasattr(value, "tolist")


def _plain(value: Any) -> Sequence[Any]:
    """A list of Python's numbers out of an array or a tensor."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    return plain if isinstance(plain, Sequence) else (plain,)
