"""Networks: no losses, no metrics."""

from diffsplat.models.gsrecon import GSRecon
from diffsplat.models.gsvae import GSAutoencoder
from diffsplat.models.multiview import MultiViewAttention, set_multiview_attention

__all__ = ["GSAutoencoder", "GSRecon", "MultiViewAttention", "set_multiview_attention"]
