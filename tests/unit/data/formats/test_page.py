"""The page on data sets says of each format what the registry says."""

import re
from pathlib import Path

from pyrafuse.data.formats.registry import all_formats

PAGE = Path(__file__).resolve().parents[4] / "docs" / "data.md"


def test_the_table_lists_every_format_in_the_order_in_which_they_look():
    rows = re.findall(r"^\| ([^|]+) \| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert rows == [(each.title, name) for name, each in all_formats()]
