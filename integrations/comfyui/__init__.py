"""Nodes of ComfyUI: put or link this folder into ComfyUI/custom_nodes, with diffsplat in ComfyUI's environment."""

from .diffsplat_nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
