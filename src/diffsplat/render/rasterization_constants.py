"""Constants of the image model that every backend follows: classic 3D Gaussian splatting without dilation.

Source: Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering" (2023), sections 4 and 6, with
the choices of the DiffSplat release: no 0.3-pixel dilation of the projected covariance, white background.
"""

ALPHA_MIN = 1 / 255
"""A splat is skipped in a pixel where its alpha is below this."""

ALPHA_MAX = 0.99
"""A splat's alpha is cut to this."""

TRANSMITTANCE_STOP = 1e-4
"""A pixel is finished by the splat that would bring its transmittance to this or below; that splat is left out."""

NEAR = 0.01
"""Splats whose centre has a camera z at or below this are not drawn, world units."""

FAR = 100.0
"""Splats whose centre has a camera z above this are not drawn, world units."""

FRUSTUM_MARGIN = 0.15
"""The derivative of the perspective projection is taken at most this far outside the image, in image sizes."""
