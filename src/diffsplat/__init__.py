"""Text, images and control maps to 3D Gaussian splats by diffusing splat latents."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffsplat.pipelines import DiffSplatPipeline

__version__ = "0.1.0"
__all__ = ["DiffSplatPipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """The pipeline on first use, because it imports torch."""
    if name == "DiffSplatPipeline":
        from diffsplat.pipelines import DiffSplatPipeline

        return DiffSplatPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names of the module, the pipeline included."""
    return sorted({*globals(), *__all__})
