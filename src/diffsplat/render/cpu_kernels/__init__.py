"""Compiled stages of the ``cpu`` backend: projection, binning, blending, and their backward passes."""
