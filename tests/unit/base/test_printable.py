from pathlib import Path

import pytest

from pyrafuse.base.printable import list_names, printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("car [old]", "car [old]"),
        ("[/b]", "[/b]"),
        ("Flugzeug, 飞机, سيارة", "Flugzeug, 飞机, سيارة"),
        ("two\nlines\t\r", r"two\nlines\t\r"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\u202egpj.exe\u2066", r"a\u202egpj.exe\u2066"),
        ("bad\udcff.jpg", r"bad\udcff.jpg"),
        ("line\u2028two", r"line\u2028two"),
        (Path("a") / "b\n.jpg", r"a/b\n.jpg"),
        (7, "7"),
    ],
)
def test_no_character_gives_orders(text, expected):
    assert printable(text) == expected
    assert printable(printable(text)) == expected


def test_a_long_name_loses_its_middle():
    assert printable("a" * 60 + "b" * 60, limit=20) == "a" * 11 + "..." + "b" * 6
    assert len(printable("x" * 21, limit=20)) == 20
    assert printable("x" * 20, limit=20) == "x" * 20


def test_the_first_of_many_names():
    assert list_names(["a\n", "b"]) == r"a\n, b"
    assert list_names(range(5), most=3) == "0, 1, 2 and 2 more"
    assert list_names(["x" * 30, "y"], limit=9) == "xxxx...xx, y"
    assert list_names([]) == ""
