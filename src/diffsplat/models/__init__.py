"""Networks: no losses, no metrics."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffsplat.models.multiview_attention import MultiViewAttention, set_multiview_attention
    from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder
    from diffsplat.models.splat_reconstructor import GSRecon
    from diffsplat.models.splat_vae import SplatVAE

__all__ = ["ComponentAutoencoder", "GSRecon", "MultiViewAttention", "SplatVAE", "set_multiview_attention"]

_MODULES = {
    "ComponentAutoencoder": "principal_component_autoencoder",
    "GSRecon": "splat_reconstructor",
    "MultiViewAttention": "multiview_attention",
    "SplatVAE": "splat_vae",
    "set_multiview_attention": "multiview_attention",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the table of backbones is read without the seconds that torch takes."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"diffsplat.models.{_MODULES[name]}"), name)
