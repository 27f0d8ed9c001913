"""Objects to training views: rendering meshes, writing and reading shards."""

from diffsplat.data.object_dataset import ObjectDataset, ObjectRow

__all__ = ["ObjectDataset", "ObjectRow"]
