"""The generation pipeline: prompts, images and control maps to splats."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffsplat.pipelines.pipeline_output import SplatOutput
    from diffsplat.pipelines.splat_pipeline import DiffSplatPipeline

__all__ = ["DiffSplatPipeline", "SplatOutput"]


def __getattr__(name: str) -> Any:
    """Import on first use: the request of a command line is checked before the seconds that torch takes."""
    if name == "DiffSplatPipeline":
        from diffsplat.pipelines.splat_pipeline import DiffSplatPipeline

        return DiffSplatPipeline
    if name == "SplatOutput":
        from diffsplat.pipelines.pipeline_output import SplatOutput

        return SplatOutput
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
