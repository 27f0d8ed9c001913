"""Manifests of published collections (:mod:`~diffsplat.data.object_manifest`)."""
