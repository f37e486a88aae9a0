"""Good files changed at random: bytes, numbers and words of texts, nodes of trees."""

import json
import re
from copy import deepcopy
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

NUMBERS = (
    b"-1", b"0", b"1000000000", b"1e400", b"-1e-400", b"nan", b"inf", b"0x10", b"1_0", b"\xd9\xa3", b"9" * 400,
    b"1" * 5000, b"2147483648", b"-9223372036854775809", b"0.1e", b"true", b"null",
)  # fmt: skip
WORDS = (
    b"", b" ", b"\0", b"\x1b[31mred\x1b[0m", b"\xff\xfe", b"\xe2\x80\xae", b"\xed\xa0\x80", b"a" * 300, b"a/" * 600,
    b"../../outside/secret.txt", b"/etc/passwd", b"~root/x", b"~nosuchuser/x", b"C:\\x", b"\\\\host\\x", b"http://[::1",
    b"file:///etc/passwd", b"&a [*a]", b"*a", b"!!int x", b"!!timestamp x", b"!!python/object/apply:os.system ['true']",
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"[" * 2000, b"{\"a\":" * 2000, b"<a>" * 2000, b"#", b"---\n", b"\r",
    b"\n\n", b"'", b'"', b",", b";", b"\t", b"{}", b"[]", b"$(true)", b"%00", b"%s%n", b"__class__", b"<<: *a",
)  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_WORD = re.compile(rb"[A-Za-z_][\w./-]*")
_BIG = "\ue000"
"""Stands in a tree for a number that JSON of Python cannot write."""


def draw_values(count: int) -> list[Any]:
    """Plain values of any shape, as hypothesis draws them."""
    single = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    nested = st.recursive(single, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner))
    drawn: list[Any] = []

    @settings(
        max_examples=count, database=None, derandomize=True, phases=[Phase.generate], deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(nested)
    def keep(value: Any) -> None:
        drawn.append(value)

    keep()
    deep: Any = 0
    for _ in range(90):
        deep = [deep]
    odd = [
        _BIG,
        deep,
        10**400,
        -1,
        0,
        2**31,
        2**63,
        1e308,
        float("nan"),
        float("inf"),
        "",
        " ",
        "a" * 300,
        [[]],
        {"": {}},
    ]
    return [*drawn, *odd, *(word.decode("latin-1") for word in WORDS)]


def change_bytes(raw: bytes, chance: Random, others: list[bytes]) -> bytes:
    """``raw`` with one to five edits."""
    given = bytearray(raw)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(given) + 1)
        length = min(chance.choice((1, 1, 2, 4, 16, 256)), len(given) - at)
        match chance.randrange(8):
            case 0:
                del given[at:]
            case 1:
                del given[at : at + length]
            case 2:
                given[at : at + length] = chance.randbytes(length)
            case 3:
                given[at:at] = given[at : at + length] * chance.choice((1, 2, 50))
            case 4:
                given[at:at] = chance.choice(WORDS + NUMBERS)
            case 5:
                other = chance.choice(others)
                begin = chance.randrange(len(other) + 1)
                given[at : at + length] = other[begin : begin + chance.choice((4, 64, 1024))]
            case 6 if at < len(given):
                given[at] ^= 1 << chance.randrange(8)
            case _:
                given[at : at + length] = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
    return bytes(given)


def change_words(raw: bytes, chance: Random) -> bytes:
    """A text with another number, word or line in one to three places."""
    for _ in range(chance.randint(1, 3)):
        if chance.random() < 0.2:
            lines = raw.split(b"\n")
            at = chance.randrange(len(lines))
            lines[at : at + 1] = chance.choice(([], [lines[at]] * 2, [lines[at], lines[chance.randrange(len(lines))]]))
            raw = b"\n".join(lines)
            continue
        pattern, choices = chance.choice(((_NUMBER, NUMBERS), (_WORD, WORDS), (_WORD, NUMBERS), (_NUMBER, WORDS)))
        if places := [found.span() for found in pattern.finditer(raw)]:
            begin, end = chance.choice(places)
            raw = raw[:begin] + chance.choice(choices) + raw[end:]
    return raw


def change_tree(value: Any, chance: Random, values: list[Any]) -> Any:
    """A plain value with one to three nodes removed, doubled, exchanged or replaced; ``value`` is left as it is."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return deepcopy(chance.choice(values))
        holder, key = chance.choice(places)
        match chance.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.append(holder[key])
            case 1:
                holder[str(chance.choice(values))[:100]] = holder[key]
            case 2:
                other, its = chance.choice(places)
                if (its in other) if isinstance(other, dict) else its < len(other):
                    holder[key] = json.loads(json.dumps(other[its]))
            case _:
                holder[key] = deepcopy(chance.choice(values))  # or the next change would be made to it
    return value


def write_json(value: Any) -> bytes:
    """JSON, with numbers that are beyond Python's own."""
    try:
        text = json.dumps(value)
    except ValueError:
        return b"[[]"
    return text.replace(json.dumps(_BIG), "9" * 5000).encode()


def _places(value: Any) -> Any:
    """Each (container, key or index) in ``value``."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        entries = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, inner in list(entries):
            yield holder, key
            if isinstance(inner, dict | list):
                waiting.append(inner)
