"""Manifests of published collections (:mod:`~diffsplat.data.object_manifest`), and the English nouns of objects."""
