"""How the project speaks: noun phrases for arguments, and none of the phrases that nobody understood."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BANNED = (
    "answers for whom",
    "looks twice",
    "looking twice",
    "divided by nothing",
    "letter by letter",
    "slips of the hand",
    "known by heart",
    "shall find nothing",
    "whom to listen",
    "without a word",
    "said of them",
    "Kept an image",
    "Images an optimiser step",
    "first look where they must",
    "what these add, else",
    "learns and decodes for it",
    "who is about to try it",
    "there is to be named",
    "there is to be said",
    "learnt in parts",
    "learnt before",
    "ithout more words",
    "is said of",
    "are told of",
    "looks again",
    "(likewise",
    "it is told otherwise",
)
"""Riddles and figures of speech that docs, help and docstrings once had."""
SOURCES = sorted((ROOT / "src/pyrafuse").rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ARGUMENT = re.compile(r"^\s+\w+: (?:(?:Of|As|Likewise|See|That|Told|So many|There)\b|[A-Z]\.$)")
"""A description of an argument, an attribute or an error that begins with no noun."""


def test_arguments_are_described_by_noun_phrases():
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in SOURCES
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if ARGUMENT.match(line)
    ]
    assert found == []


def test_no_banned_phrase_has_come_back():
    texts = {file: " ".join(file.read_text().split()) for file in [*SOURCES, *PAGES]}
    assert [(file.name, phrase) for file, text in texts.items() for phrase in BANNED if phrase in text] == []


def test_the_rules_catch_what_they_are_for():
    assert ARGUMENT.match("        channels: Of every level.")
    assert ARGUMENT.match("        paddings: Likewise.")
    assert ARGUMENT.match("        channels: That come out.")
    assert ARGUMENT.match("        num_classes: K.")
    assert not ARGUMENT.match("        num_classes: Number of classes, K.")
    assert not ARGUMENT.match("        channels: Channels of every level.")
