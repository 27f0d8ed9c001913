"""Published collections of objects: a table of names for each, and the code that lists its objects.

A table (``kaykit.toml``, ``sweethome3d.toml``) is read as :class:`~diffsplat.data.object_labels.Collection`;
``object_nouns.toml`` holds the English nouns that all collections share.
"""
