"""Text, images and control maps to 3D Gaussian splats by diffusing splat latents."""

__version__ = "0.1.0"
