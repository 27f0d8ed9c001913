"""From objects to training views.

In order: ``collections`` and ``mesh_sources`` list meshes, ``mesh_ingestion`` renders them (``gobjaverse`` converts
what is rendered already), ``shard_writing`` writes rows of ``shard_schema``, ``shard_index`` gathers them,
``object_table`` and ``object_dataset`` read them.
"""

from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.data.shard_row import ObjectRow

__all__ = ["ObjectDataset", "ObjectRow"]
