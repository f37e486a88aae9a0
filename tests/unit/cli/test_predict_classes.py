import pytest

from pyrafuse.cli.predict import split_classes

NAMES = ("cat", "[/b]", "car [old]", "nuts, bolts")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("cat", ["cat"]),
        ("cat, car [old]", ["cat", "car [old]"]),
        ("[/b]", ["[/b]"]),
        ("nuts, bolts", ["nuts, bolts"]),
        ("0,2", ["0", "2"]),
    ],
)
def test_names_with_signs_are_names(text, expected):
    assert split_classes(text, NAMES) == expected
