"""Compiled stages of the ``cpu`` backend: project, bin, blend, and the way back.

Only :mod:`diffsplat.render.cpu_backend` imports this package, because it needs numba.
"""
