"""ComfyUI nodes that load a model, generate splats, save them and render them.

An ``IMAGE`` of ComfyUI is ``[B, H, W, 3]``, 0 to 1.
"""

from pathlib import Path
from typing import Any

import folder_paths  # of ComfyUI
import torch

from diffsplat.core import DEFAULT_RADIUS
from diffsplat.io.splat_formats import write_splats
from diffsplat.io.splat_suffixes import WRITABLE_SUFFIXES
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.pipeline_output import GeneratedObject
from diffsplat.pipelines.turntable_video import turntable_frames

CATEGORY = "diffsplat"
_CONTROLS = ("none", "depth", "normal", "canny")
_MOST = 2**32 - 1


class LoadModel:
    """A pipeline: the embedded model, a model folder or a released model, on the best device."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = ("DIFFSPLAT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """As ComfyUI asks for them."""
        return {
            "required": {
                "model": ("STRING", {"default": "mini"}),
                "takes_image": ("BOOLEAN", {"default": False}),
                "control": (_CONTROLS,),
            }
        }

    def load(self, model: str, takes_image: bool, control: Any) -> tuple[DiffSplatPipeline]:
        """The pipeline."""
        kind = None if control == "none" else control
        pipe = DiffSplatPipeline.from_pretrained(model, image=takes_image, control=kind)
        return (pipe.to("cuda" if torch.cuda.is_available() else "cpu"),)


class Generate:
    """Objects from a prompt, an image or a control map."""

    CATEGORY = CATEGORY
    FUNCTION = "generate"
    RETURN_TYPES = ("SPLATS",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """As ComfyUI asks for them."""
        return {
            "required": {
                "pipe": ("DIFFSPLAT",),
                "prompt": ("STRING", {"default": "a red armchair", "multiline": True}),
                "negative_prompt": ("STRING", {"default": "", "multiline": True}),
                "seed": ("INT", {"default": 0, "min": 0, "max": _MOST}),
                "steps": ("INT", {"default": 0, "min": 0, "max": 1000, "tooltip": "0: the model's own"}),
                "guidance": (
                    "FLOAT",
                    {
                        "default": -1.0,
                        "min": -1.0,
                        "max": 100.0,
                        "step": 0.1,
                        "tooltip": "-1: the model's own",
                    },
                ),
                "count": ("INT", {"default": 1, "min": 1, "max": 16}),
            },
            "optional": {"image": ("IMAGE",), "control": ("IMAGE",)},
        }

    def generate(
        self,
        pipe: DiffSplatPipeline,
        steps: int,
        guidance: float,
        image: torch.Tensor | None = None,
        control: torch.Tensor | None = None,
        **options: Any,
    ) -> tuple[tuple[GeneratedObject, ...]]:
        """The objects."""
        options |= {"steps": steps or None, "guidance": None if guidance < 0 else guidance}
        conditions = {"image": image, "control": control}
        images = {
            name: tensor[0].permute(2, 0, 1) for name, tensor in conditions.items() if tensor is not None
        }
        return (pipe(**images, **options).objects(),)


class Save:
    """Splats as files in ComfyUI's folder of outputs."""

    CATEGORY = CATEGORY
    FUNCTION = "save"
    RETURN_TYPES = ("STRING",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """As ComfyUI asks for them."""
        return {
            "required": {
                "splats": ("SPLATS",),
                "filename_prefix": ("STRING", {"default": "splats/object"}),
                "format": (WRITABLE_SUFFIXES,),
            }
        }

    def save(self, splats: tuple[GeneratedObject, ...], filename_prefix: str, format: str) -> Any:  # noqa: A002
        """Paths, one a line."""
        folder, name, counter, *_ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        paths = []
        for item in splats:
            path = Path(folder) / f"{name}_{counter:05}_{format}"
            while path.exists():
                counter += 1
                path = Path(folder) / f"{name}_{counter:05}_{format}"
            write_splats(item.splats, path)
            paths.append(str(path))
        return {"ui": {"text": paths}, "result": ("\n".join(paths),)}


class Preview:
    """Images of the objects from all around, for the nodes that show images or save videos."""

    CATEGORY = CATEGORY
    FUNCTION = "render"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """As ComfyUI asks for them."""
        return {
            "required": {
                "splats": ("SPLATS",),
                "frames": ("INT", {"default": 4, "min": 1, "max": 240}),
                "size": ("INT", {"default": 256, "min": 16, "max": 2048}),
            }
        }

    def render(self, splats: tuple[GeneratedObject, ...], frames: int, size: int) -> tuple[torch.Tensor]:
        """``[objects * frames, size, size, 3]``."""
        images = [
            frame.permute(1, 2, 0).clamp(0, 1)
            for item in splats
            for frame in turntable_frames(
                item.splats, frames=frames, elevation_deg=item.elevation_deg, size=size, radius=DEFAULT_RADIUS
            )
        ]
        return (torch.stack(images),)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "DiffSplatLoadModel": LoadModel,
    "DiffSplatGenerate": Generate,
    "DiffSplatSave": Save,
    "DiffSplatPreview": Preview,
}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "DiffSplatLoadModel": "Load DiffSplat model",
    "DiffSplatGenerate": "Generate splats",
    "DiffSplatSave": "Save splats",
    "DiffSplatPreview": "Render splats",
}
