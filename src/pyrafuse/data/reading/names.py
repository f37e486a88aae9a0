"""Names of files as annotations spell them, compared rule by rule: text -> folders + bare name -> the rule that fits.

The rules, each as lenient as all before it: the same text, the same Unicode letters (composed or not), percent signs
decoded, capitals ignored, another suffix, and what tools make of a name when a file is uploaded.
"""

import re
import unicodedata
from collections.abc import Collection
from functools import lru_cache
from urllib.parse import parse_qsl, unquote

RULES = ("as written", "Unicode form", "percent signs", "capitals", "suffix", "upload name")
"""What two names may differ in, the strictest first; a rule's number is its rank."""

SPELLINGS = {
    1: "another Unicode form of the name",
    2: "the name with its percent signs decoded",
    3: "other capitals of the name",
    4: "the name with another suffix",
    5: "the name that a tool gave at the upload",
}
"""How to say which rule found a file."""

# Label Studio puts eight hexadecimal digits before a name, which a date is not; others a UUID or an MD5 sum
_UPLOAD_PREFIX = re.compile(
    r"(?!(?:19|20)\d\d(?:0[1-9]|1[0-2])[0-3]\d[-_])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}|[0-9a-f]{8})[-_](?=.)"
)
# Roboflow makes name_jpg.rf.HASH.jpg of name.jpg
_UPLOAD_ENDING = re.compile(r"(?:_(?:jpe?g|png|bmp|webp|tiff?|jfif|avif))?\.rf\.[0-9a-z]{16,40}$")


def split_name(name: str, suffixes: Collection[str] = ()) -> tuple[str, ...]:
    """The folders and the bare name in ``name``: a path of any system, or a URL; ``.`` and ``..`` are left out.

    Args:
        name: Name as it was written.
        suffixes: Suffixes of files that are looked for: a query may hold the name where the path has none of them.
    """
    text = name.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    if "://" in text:
        text = text.partition("://")[2].partition("/")[2].partition("#")[0]
    head, question, query = text.partition("?")
    if question:
        given = [value for _, value in parse_qsl(query) if has_suffix(value, suffixes)]
        text = given[-1] if given and not has_suffix(head, suffixes) else head
    text = re.sub(r"^[A-Za-z]:(?=[\\/])", "", text).replace("\\", "/")
    return tuple(part for part in text.split("/") if part not in {"", ".", ".."})


def has_suffix(name: str, suffixes: Collection[str]) -> bool:
    """Whether ``name`` ends in one of ``suffixes`` (lower case, with the dot)."""
    return _suffix(name).lower() in suffixes


def spell(name: str, rule: int, suffixes: Collection[str]) -> str:
    """The key of a bare name: two names with one key are the same by ``rule``, its rank in `RULES`."""
    if rule >= 1:
        name = _compose(name)
    if rule >= 2 and "%" in name:
        name = _compose(unquote(name))
    if rule >= 3:
        name = _compose(name.casefold())
    if rule >= 4 and has_suffix(name, suffixes):
        name = without_suffix(name)
    if rule >= 5:
        bare = _without_upload(name)
        name = re.sub(r"[\s_-]+", "_", re.sub(r"[^\w\s-]", "", bare)) or name
    return name


def find_rule(given: str, name: str, suffixes: Collection[str]) -> int | None:
    """The strictest rule by which ``given`` is ``name``, None if none is; without a suffix, ``given`` fits any."""
    if given == name:
        return 0
    if not has_suffix(given, suffixes):
        name = without_suffix(name)
    for rule in range(len(RULES)):
        if spell(given, rule, suffixes) == spell(name, rule, suffixes):
            is_upload = rule == len(RULES) - 1
            return None if is_upload and all(_is_upload(text, suffixes) for text in (given, name)) else rule
    return None


@lru_cache(maxsize=4096)
def spell_folder(name: str) -> str:
    """The key of a folder's name: capitals, Unicode form and percent signs make no difference."""
    return spell(name, 3, ())


def _is_upload(name: str, suffixes: Collection[str]) -> bool:
    """Whether a tool named it so: two such names that differ are two uploads, or two augmented copies."""
    stem = spell(name, 4, suffixes)
    return _without_upload(stem) != stem


def _without_upload(stem: str) -> str:
    return _UPLOAD_ENDING.sub("", _UPLOAD_PREFIX.sub("", stem, count=1))


def without_suffix(name: str) -> str:
    """``name`` up to its last dot; a dot in front begins no suffix."""
    return name[: len(name) - len(_suffix(name))]


def _compose(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _suffix(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:] if dot > 0 else ""
