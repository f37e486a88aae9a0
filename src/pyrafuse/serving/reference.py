"""The reference of a REST interface as one page that needs nothing else: OpenAPI -> HTML."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f6f8fa; --text: #1f2328; --back: #ffffff; --dim: #59636e }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --soft: #151b23; --text: #f0f6fc; --back: #0d1117; --dim: #9198a1 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 0 auto;
  max-width: 60rem; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem } p { margin: .25rem 0 }
code, pre { font: 14px/1.45 ui-monospace, monospace } pre { background: var(--soft); padding: .75rem; overflow-x: auto;
  border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0 }
div.table { overflow-x: auto } table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line) }
th { color: var(--dim); font-weight: 500 } .verb { color: var(--dim); margin-right: .4rem } a { color: inherit }
"""

EXAMPLES = """\
curl -F image=@photo.jpg -F score=0.4 {base}/predict
curl -H "Content-Type: image/jpeg" --data-binary @photo.jpg "{base}/predict?score=0.4"
printf '{{"image": "%s"}}' "$(base64 -w0 photo.jpg)" | curl -H "Content-Type: application/json" -d @- {base}/predict"""


def write_reference(spec: Mapping[str, Any], *, base: str = "http://127.0.0.1:8000") -> str:
    """The page of ``spec``; ``base`` is the address in its examples."""
    title = escape(f"{spec['info']['title']} {spec['info']['version']}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>'
        f"<h1>{title}</h1><p>{escape(spec['info'].get('description', ''))}</p>"
        '<p>For programs: <a href="openapi.json">openapi.json</a></p>'
        f"<h3>Examples</h3><pre>{escape(EXAMPLES.format(base=base))}</pre>"
        f"{''.join(_write_operations(spec))}</html>"
    )


def _write_operations(spec: Mapping[str, Any]) -> Iterator[str]:
    for path, operations in spec["paths"].items():
        for verb, operation in operations.items():
            yield f'<h2><code><span class="verb">{verb.upper()}</span>{escape(path)}</code></h2>'
            yield f"<p>{escape(operation.get('summary', ''))}</p>"
            bodies = operation.get("requestBody", {}).get("content", {})
            if bodies:
                yield f"<h3>Request: {escape(', '.join(bodies))}</h3>"
                yield _write_fields(next(iter(bodies.values()))["schema"], spec)
            for status, response in operation["responses"].items():
                schema = response.get("content", {}).get("application/json", {}).get("schema", {})
                if status == "200":
                    yield "<h3>Answer</h3>" + _write_fields(schema, spec)
            others = {status: r["description"] for status, r in operation["responses"].items() if status != "200"}
            if others:
                yield '<h3>Errors, as <code>{"error": "..."}</code></h3>'
                yield _write_table(("status", "why"), others.items())


def _write_fields(schema: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    schema = _resolve(schema, spec)
    rows = [
        (name, _tell_kind(field, spec), field.get("description", ""))
        for name, field in schema.get("properties", {}).items()
    ]
    return f"<p>{escape(schema.get('description', ''))}</p>" + _write_table(("field", "kind", ""), rows)


def _resolve(schema: Mapping[str, Any], spec: Mapping[str, Any]) -> Mapping[str, Any]:
    if schema.get("type") == "array" and "$ref" in schema.get("items", {}):
        schema = schema["items"]
    if "$ref" in schema:
        return spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _tell_kind(field: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    if choices := field.get("anyOf"):
        kinds = [_tell_kind(choice, spec) for choice in choices if choice.get("type") != "null"]
        return " or ".join(kinds) + (", optional" if len(kinds) < len(choices) else "")
    if "$ref" in field:
        inner = _resolve(field, spec).get("properties", {})
        return "{" + ", ".join(f"{name}: {_tell_kind(each, spec)}" for name, each in inner.items()) + "}"
    if field.get("type") == "array":
        if "prefixItems" in field:
            return "[" + ", ".join(_tell_kind(each, spec) for each in field["prefixItems"]) + "]"
        return f"list of {_tell_kind(field.get('items', {}), spec)}"
    return "file" if field.get("format") == "binary" else field.get("type", "")


def _write_table(head: tuple[str, ...], rows: Any) -> str:
    top = "".join(f"<th>{escape(word)}</th>" for word in head)
    lines = "".join(
        f"<tr><td><code>{escape(str(first))}</code>{''.join(f'<td>{escape(str(cell))}' for cell in rest)}"
        for first, *rest in rows
    )
    return f'<div class="table"><table><tr>{top}</tr>{lines}</table></div>'
