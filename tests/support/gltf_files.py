"""glTF files built from arrays, by the specification and without our readers."""

import base64
import io
import json
import struct
from urllib.parse import quote

import numpy as np
from PIL import Image

CODES = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}

# A square of side 1 around the origin, facing +Z; texture coordinates with v downwards.
SQUARE = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]], dtype="f4")
SQUARE_UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], dtype="f4")
SQUARE_INDICES = np.array([0, 1, 2, 0, 2, 3], dtype="u2")


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


class GltfBuilder:
    """A document with one square, of which tests change what they are about."""

    def __init__(self):
        self.binary = b""
        self.root = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
            "meshes": [], "accessors": [], "bufferViews": [], "images": [], "textures": [], "materials": [],
        }  # fmt: skip

    def view(self, data, **more):
        self.binary += b"\0" * (-len(self.binary) % 4)
        entry = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data), **more}
        self.root["bufferViews"].append(entry)
        self.binary += data
        return len(self.root["bufferViews"]) - 1

    def accessor(self, values, **more):
        values = np.asarray(values)
        values = values.reshape(len(values), -1)
        entry = {
            "bufferView": self.view(values.tobytes()),
            "componentType": CODES[values.dtype.str[1:]],
            "count": len(values),
            "type": KINDS[values.shape[1]],
            **more,
        }
        self.root["accessors"].append(entry)
        return len(self.root["accessors"]) - 1

    def image(self, data, mime="image/png"):
        self.root["images"].append({"bufferView": self.view(data), "mimeType": mime})
        return len(self.root["images"]) - 1

    def texture(self, pixels, **more):
        self.root["textures"].append({"source": self.image(png(pixels)), **more})
        return len(self.root["textures"]) - 1

    def mesh(self, *, positions=SQUARE, indices=SQUARE_INDICES, mode=4, attributes=None, **more):
        names = {"POSITION": positions, **(attributes or {})}
        primitive = {
            "mode": mode,
            "attributes": {
                name: values if isinstance(values, int) else self.accessor(values)
                for name, values in names.items()
            },
            **more,
        }
        if indices is not None:
            primitive["indices"] = self.accessor(indices)
        self.root["meshes"].append({"primitives": [primitive]})
        return len(self.root["meshes"]) - 1

    def textured_square(self, pixels, *, uv=SQUARE_UV, reference=None, texture=None, **material):
        index = self.texture(pixels, **(texture or {}))
        self.root["materials"].append(
            {"pbrMetallicRoughness": {"baseColorTexture": {"index": index, **(reference or {})}}, **material}
        )
        self.mesh(attributes={"TEXCOORD_0": uv}, material=0)
        return self

    def glb(self):
        text = json.dumps({**self.root, "buffers": [{"byteLength": len(self.binary)}]}).encode()
        text += b" " * (-len(text) % 4)
        binary = self.binary + b"\0" * (-len(self.binary) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
        chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
        return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks

    def gltf(self, uri=None):
        """The document alone, its buffer in a data URI or in the file that ``uri`` names."""
        data = "data:application/octet-stream;base64," + base64.b64encode(self.binary).decode()
        return json.dumps(
            {**self.root, "buffers": [{"byteLength": len(self.binary), "uri": uri or data}]}
        ).encode()


def percent_encoded(name):
    return quote(name)
