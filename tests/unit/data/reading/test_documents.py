"""JSON, XML and CSV of strangers, with limits."""

from xml.etree import ElementTree

import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.reading.documents import check_bytes, parse_xml, read_json, read_table, read_xml_children


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"), ('{"a": ', "is no complete JSON: .*line 1, column 7"), ("[" * 100_000, "too deep"),
        ("[" + "9" * 5000 + "]", "holds a number that cannot be read"),
    ],
)  # fmt: skip
def test_json_that_is_refused(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.json {message}|a\.json .*{message}"):
        read_json(path)


def test_files_that_are_too_long_are_not_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1, 2]")
    assert read_json(path, most=6) == [1, 2]
    with pytest.raises(DataError, match=r"a\.json has 6 bytes, more than the 5 that are read; cut it into several"):
        check_bytes(path, 5)
    with pytest.raises(DataError, match="No such file"):
        check_bytes(tmp_path / "b.json", 5)


def test_xml_equals_that_of_the_standard_library():
    text = '<?xml version="1.0" encoding="iso-8859-1"?><a b="1">x<c>\xe9</c>y<d/></a>'.encode("iso-8859-1")
    assert ElementTree.tostring(parse_xml(text)) == ElementTree.tostring(ElementTree.fromstring(text))


@pytest.mark.parametrize(
    "text",
    ['<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', '<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd"><a/>', "<a><b></a>",
     "<a>",
     "<a>" * 101 + "</a>" * 101],
)  # fmt: skip
def test_xml_that_is_refused(text):
    with pytest.raises(ElementTree.ParseError):
        parse_xml(text)


def test_children_come_one_by_one(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<a>" + "".join(f'<b n="{i}"><c>{i}</c></b>\n' for i in range(50_000)) + "</a>")
    children = [(child.get("n"), child.findtext("c")) for child in read_xml_children(path)]
    assert children == [(str(i), str(i)) for i in range(50_000)]


def test_tables_with_any_delimiter(tmp_path):
    path = tmp_path / "a.csv"
    for mark in ",;\t":
        path.write_text(f'a{mark}"b{mark} c"{mark} d \n\n1{mark}2{mark}3\n')
        assert list(read_table(path)) == [(1, ["a", f"b{mark} c", "d"]), (3, ["1", "2", "3"])]
