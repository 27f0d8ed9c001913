"""The API's documentation as one page, made from its schema, where every request can be tried."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.92em; }
pre { padding: 0.8rem; overflow: auto; border: 1px solid #8886; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.8rem 0.25rem 0; border-top: 1px solid #8884; }
h2 { margin-top: 2.5rem; }
form { margin: 0.8rem 0; padding: 0.8rem; border: 1px solid #8884; border-radius: 6px; }
label { display: block; margin-bottom: 0.5rem; }
textarea { display: block; width: 100%; box-sizing: border-box; font: 0.92em ui-monospace, monospace; }
img { max-width: 100%; }
"""

_START = """curl -s localhost:PORT/api/jobs -H 'Content-Type: application/json' -d '{"prompt": "a red armchair"}'
curl -sN localhost:PORT/api/jobs/ID/events
curl -sO localhost:PORT/api/jobs/ID/results/0.ply"""


_EXAMPLES = {"prompt": "a red armchair", "seed": 0, "number": "0", "format": "png", "name": "image"}
"""Initial values of inputs."""


def docs_page(schema: dict[str, Any]) -> str:
    """HTML that lists every operation of an OpenAPI schema with its inputs and answers, and a form that sends it."""
    operations = "".join(
        _operation(method.upper(), path, operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    )
    models = "".join(
        f"<h3 id='{escape(name)}'><code>{escape(name)}</code></h3>{_table(_properties(model))}"
        for name, model in schema["components"]["schemas"].items()
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>diffsplat API</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<style>{_STYLE}</style>"
        "<script type='module' src='../static/js/api_docs.js'></script>"
        f"</head><body><h1>diffsplat API {escape(schema['info']['version'])}</h1>"
        "<p>The schema is at <a href='openapi.json'><code>/api/openapi.json</code></a> (OpenAPI). With a token, "
        "every request but health carries <code>Authorization: Bearer TOKEN</code>. Errors are JSON with one "
        f"sentence: <code>{{'detail': '...'}}</code>.</p><pre>{escape(_START)}</pre>"
        "<label id='token' hidden>Token <input type='password' autocomplete='off'></label>"
        f"{operations}"
        f"<h2>Objects</h2>{models}</body></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"<h2><code>{method} {escape(path)}</code></h2><p><b>{escape(operation['summary'])}.</b> "]
    parts.append(f"{escape(operation.get('description', ''))}</p>")
    inputs = [
        (entry["name"], "path", entry.get("description", "")) for entry in operation.get("parameters", ())
    ]
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        if kind == "application/json":
            inputs += list(_properties(body["schema"]))
    if inputs:
        parts.append(f"<h4>Takes</h4>{_table(inputs)}")
    parts.append(_form(method, path, operation))
    answers = [
        (status, ", ".join(answer.get("content", ())) or "no body", answer["description"])
        for status, answer in operation["responses"].items()
    ]
    parts.append(f"<h4>Answers</h4>{_table(answers)}")
    return "".join(parts)


def _form(method: str, path: str, operation: dict[str, Any]) -> str:
    """A form that sends a request, with a field for each part of its path and one for its body."""
    fields = "".join(
        f"<label>{name} <input name='{name}' value='{_EXAMPLES.get(name, '')}' required></label>"
        for name in (entry["name"] for entry in operation.get("parameters", ()))
    )
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        known = content["application/json"]["schema"]["properties"]
        body = json.dumps({name: value for name, value in _EXAMPLES.items() if name in known})
        fields += f"<label>JSON <textarea name='body' rows='3'>{escape(body)}</textarea></label>"
    return (
        f"<form data-method='{method}' data-path='{escape(path)}'>{fields}<button>Send</button>"
        "<output></output></form>"
    )


def _properties(schema: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, type and description of an object's values."""
    for name, value in schema.get("properties", {}).items():
        default = f" Default: {value['default']!r}." if value.get("default") not in (None, "") else ""
        yield name, _type(value), f"{value.get('description', '')}{default}"


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return value["$ref"].rpartition("/")[2]
    if "anyOf" in value:
        return " or ".join(_type(choice) for choice in value["anyOf"])
    if "enum" in value:
        return " or ".join(map(repr, value["enum"]))
    if value.get("type") == "array":
        return f"list of {_type(value['items'])}"
    return str(value.get("type", "any"))


def _table(rows: Any) -> str:
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{body}</table>"
