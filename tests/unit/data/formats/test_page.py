"""The page on data sets says of each format what the registry says."""

import re
from pathlib import Path

from pyrafuse.data.formats.registry import AnnotationFormat, all_formats
from pyrafuse.data.writing.layouts import KEPT

PAGE = Path(__file__).resolve().parents[4] / "docs/how_to/data.md"


def describe(name: str, each: AnnotationFormat) -> str:
    if each.writing is None:
        return f"| {each.title} | `{name}` | yes | no | - |"
    lost = "; ".join(words for kind, words in KEPT.items() if kind not in each.writing.keeps)
    return f"| {each.title} | `{name}` | yes | yes | {lost or 'nothing'} |"


def test_the_tables_list_every_format_in_the_order_in_which_they_look():
    text = PAGE.read_text()
    assert re.findall(r"^\| .+ \| `\w+` \| yes \| .+$", text, re.MULTILINE) == [
        describe(name, each) for name, each in all_formats()
    ]
    looks = re.findall(r"^\| ([^|]+) \| `(\w+)` \| (?!yes)", text, re.MULTILINE)
    assert looks == [(each.title, name) for name, each in all_formats()]
