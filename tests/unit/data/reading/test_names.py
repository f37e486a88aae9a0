"""Names as annotations spell them: what they are taken apart into, and by which rule two are the same."""

import unicodedata

import pytest

from pyrafuse.data.reading.names import RULES, find_rule, split_name

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".tif"})


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.jpg", ("a.jpg",)),
        ("./images/../images/a.jpg", ("images", "images", "a.jpg")),
        ("/content/darknet/data/obj/a.jpg", ("content", "darknet", "data", "obj", "a.jpg")),
        (r"C:\Users\me\obj\a b.jpg", ("Users", "me", "obj", "a b.jpg")),
        (r"\\server\share\a.jpg", ("server", "share", "a.jpg")),
        ('"obj/a.jpg" ', ("obj", "a.jpg")),
        ("http://images.org/train2017/a.jpg?size=2#top", ("train2017", "a.jpg")),
        ("s3://bucket/train/a.jpg", ("train", "a.jpg")),
        ("/data/local-files/?d=photos/a%20b.jpg", ("photos", "a b.jpg")),
        ("a#1.jpg", ("a#1.jpg",)),
        ("..", ()),
    ],
)
def test_paths_of_every_system_and_addresses(name, parts):
    assert split_name(name, IMAGES) == parts


@pytest.mark.parametrize(
    ("given", "name", "rule"),
    [
        ("a.jpg", "a.jpg", "as written"),
        ("a", "a.jpg", "as written"),
        ("a.v2", "a.v2.png", "as written"),
        (unicodedata.normalize("NFD", "é.jpg"), unicodedata.normalize("NFC", "é.jpg"), "Unicode form"),
        ("d%C3%A9cran%20%280%29.png", unicodedata.normalize("NFD", "décran (0).png"), "percent signs"),
        ("100%.png", "100%25.png", "percent signs"),
        ("IMG_1.jpg", "img_1.JPG", "capitals"),
        ("straße.png", "STRASSE.png", "capitals"),
        ("a.png", "A.jpg", "suffix"),
        ("3f2a1b9c-site_visit_1.jpg", "site visit (1).jpg", "upload name"),
        ("site visit 1.jpg", "3f2a1b9c-site_visit_1.png", "upload name"),
        ("0b7e1c52-9d0c-4c55-8a53-6f0f6c1d2e3f-a.jpg", "a.jpg", "upload name"),
        ("a_jpg.rf.0123456789abcdef0123456789abcdef.jpg", "a.jpg", "upload name"),
        ("3f2a1b9c-a.jpg", "0b7e1c52-a.jpg", None),
        ("20240102-a.jpg", "20240101-a.jpg", None),
        ("20240102-a.jpg", "a.jpg", None),
        ("a_jpg.rf.0123456789abcdef0123456789abcdef.jpg", "a_jpg.rf.1123456789abcdef0123456789abcdef.jpg", None),
        ("a1.jpg", "a2.jpg", None),
        ("a.v2", "a.v3.png", None),
        ("a_1_2.jpg", "a_12.jpg", None),
    ],
)
def test_the_strictest_rule_by_which_two_names_are_one(given, name, rule):
    found = find_rule(given, name, IMAGES)
    assert (None if found is None else RULES[found]) == rule
