"""An object and its viewer as one HTML file that needs no server and no network."""

import base64
import html
import json
import re

from diffsplat.web.page_routes import STATIC

_MODULES = (
    "vendor.js",
    "bounds.js",
    "files.js",
    "orbit.js",
    "ply_writing.js",
    "triangle_meshes.js",
    "viewer.js",
    "visibility.js",
)
"""What the viewer consists of."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
html, body {{ margin: 0; height: 100%; }}
body {{ background: #ffffff; font: 15px system-ui, sans-serif; overflow: hidden; }}
#surface, canvas {{ display: block; width: 100%; height: 100%; touch-action: none; }}
p {{ position: fixed; inset: auto 16px 12px; margin: 0; color: #556; pointer-events: none; overflow-wrap: anywhere; }}
p {{ display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }}
</style>
<script type="importmap">{modules}</script>
</head>
<body>
<div id="surface"></div>
<p>{title}</p>
<!-- The viewer is diffsplat's (Apache-2.0), with these libraries:
{licences}
-->
<script type="module">
import {{ createViewer }} from "viewer.js";
const viewer = createViewer(document.getElementById("surface"), {{ background: "#ffffff" }});
const bytes = Uint8Array.from(atob({splats}), (letter) => letter.charCodeAt(0));
await viewer.load(bytes.buffer, {name});
await viewer.whenSettled();
viewer.setTurning(!matchMedia("(prefers-reduced-motion: reduce)").matches);
viewer.canvas.addEventListener("pointerdown", () => viewer.setTurning(false));
document.documentElement.dataset.state = "ready";
</script>
</body>
</html>
"""


def viewer_page(splats: bytes, name: str, title: str) -> str:
    """The HTML.

    Args:
        splats: content of a file that browsers read.
        name: of that file, whose suffix is its format.
        title: what the object is called.
    """
    modules = {
        module: f"data:text/javascript;base64,{_base64(_module(module).encode())}" for module in _MODULES
    }
    licences = (STATIC / "LICENSES.txt").read_text(encoding="utf-8").replace("--", "- -")
    return _PAGE.format(
        title=html.escape(title),
        modules=json.dumps({"imports": modules}),
        licences=licences,
        splats=json.dumps(_base64(splats)),
        name=json.dumps(name),
    )


def _module(name: str) -> str:
    """The text of a module, whose imports are names of the page's import map."""
    text = (STATIC / "js" / name).read_text(encoding="utf-8")
    return text if name == "vendor.js" else re.sub(r'from "\./([a-z_]+\.js)"', r'from "\1"', text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
