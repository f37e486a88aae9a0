from pathlib import Path

import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.base.printable import hide_logins, hide_logins_in, list_names, printable, printable_lines
from pyrafuse.visualization.report import Report


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://admin:secret@10.0.0.7:554/ch1", "rtsp://10.0.0.7:554/ch1"),
        ("cannot read https://me:s3cret@host/a@b?c=d@e: 404", "cannot read https://host/a@b?c=d@e: 404"),
        ("S3://KEY:a/b+c@bucket/f", "S3://bucket/f"),  # as keys of S3 are
        ("rtsp://admin:p@ss@host/", "rtsp://host/"),
        ("https://ghp_token@host/x", "https://host/x"),
        ("https:/me:secret@host/x", "https:/host/x"),  # as a path has it
        ("from 'gs://a:b@c' to \"gs://d:e@f\"", "from 'gs://c' to \"gs://f\""),
        ("mysql+pymysql://u:p@db:3306/x and http://v:w@h", "mysql+pymysql://db:3306/x and http://h"),
        *[(plain, plain) for plain in (
            "http://host:8080/a@b", "https://host/@user/x", "s3://bucket/a@2x.png", "me@host:/data/a.png",
            "C:/me@home/a.png", "http://[::1]:80/a@b", "https://host/?mail=a@b", "two: /a@b",
        )],
    ],
)  # fmt: skip
def test_addresses_are_shown_without_their_logins(text, expected):
    assert hide_logins(text) == printable(text) == printable_lines(text) == str(DataError(text)) == expected
    assert printable_lines(f"{text}\n\x07") == f"{expected}\n\\x07"
    page = Report("a page")
    page.add_key_values({"data": text})
    assert ("secret" in page.to_html()) is ("secret" in expected)


def test_settings_are_shown_without_logins():
    values = {"data": {"path": "s3://a:b@c/d", "sizes": [64, "s3://a:b@c"]}, "lr": 0.1, "name": None}
    assert hide_logins_in(values) == {"data": {"path": "s3://c/d", "sizes": [64, "s3://c"]}, "lr": 0.1, "name": None}


@pytest.mark.parametrize("text", ["a" * 300_000 + "@", "@" + "ab:/u:x" * 10_000])
def test_a_long_text_without_a_login_is_left_as_it_is(text):
    """Within the time of a test: no search that goes back to each letter would end in it."""
    assert hide_logins(text) == text
