"""The one lookup of files by the names that lists and annotations give them.

names -> the likeliest folders -> files of the tree with a like name, rule by rule -> `Found`, and what is to be said
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pyrafuse.base.errors import nearest
from pyrafuse.base.images.reading import IMAGE_SUFFIXES
from pyrafuse.data.reading.folders import PICTURE_SUFFIXES, Tree, split_part_of
from pyrafuse.data.reading.names import RULES, SPELLINGS, find_rule, has_suffix, spell, spell_folder, split_name

NUM_HINTS = 3
"""So many missing files are told with the name that is nearest; the others look alike."""

_OTHER_FOLDER = len(RULES)  # found by the end of its path
_LOOSEST = len(RULES) - 1
_ROUNDS = 4


@dataclass(frozen=True)
class Found:
    """What a lookup gave.

    Attributes:
        path: The file; none if there is none, or none that is the only one.
        name: The name that it was looked up by.
        rule: What was forgiven to find it: a rank in `RULES`, or one more where the folders differ; 0 for nothing.
        fault: Why it was not found, where more is to be said than that.
        is_ambiguous: Whether several files fit.
    """

    path: Path | None
    name: str
    rule: int = 0
    fault: str = ""
    is_ambiguous: bool = False


@dataclass(frozen=True)
class _Fit:
    """A file that a name may mean, and how well it fits: less is better."""

    path: str
    rank: tuple[bool, bool, int, int, bool, int]
    rule: int


class FileFinder:
    """Finds files by the names that annotations give them.

    A file that lies as its name says in one of the folders is taken as it is. Others are looked up among all files:
    those in the split's own folders before those in folders of no split, and never those in another split's folder,
    unless the name gives that folder. Where names differ, the strictest rule wins. What one name means by a stricter
    rule, no other name means; where two files fit equally well, none is taken.

    Args:
        folders: Where to look first, the likeliest first.
        files: All files, asked for when a name is in none of those folders.
        split: The split that the names belong to; ``""`` for none.
        root: The folder below which names of folders speak of splits.
        suffixes: Suffixes of the files that are looked for (lower case, with the dot).
        others: Names, in lower case, of folders that are other splits' own, whatever they are called.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        files: Callable[[], Iterable[str]],
        *,
        split: str,
        root: Path,
        suffixes: frozenset[str],
        others: frozenset[str] = frozenset(),
    ) -> None:
        self.folders = tuple(dict.fromkeys(folders))
        self._files = files
        self._split = split
        self._root = root
        self._suffixes = suffixes
        self._others = others
        self._rank_of = {os.fspath(folder): rank for rank, folder in enumerate(self.folders)}
        self._part_of: dict[str, tuple[str, int]] = {}
        own = [folder for folder in self._rank_of if split and self._split_part(f"{folder}/")[0] == split]
        self._likeliest = own or list(self._rank_of)

    def find_all(self, names: Sequence[Sequence[str]]) -> list[Found]:
        """The file of each name; a name may have several spellings, the likeliest first."""
        found = [self._find_as_written(spellings) for spellings in names]
        pending = [i for i, item in enumerate(found) if item.path is None]
        if pending:
            self._forgive(names, found, pending)
        return found

    def _find_as_written(self, spellings: Sequence[str]) -> Found:
        for name in spellings:
            path = self._at(name)
            if path is not None:
                return Found(Path(path), name)
        return Found(None, spellings[0])

    def _at(self, name: str) -> str | None:
        for text in dict.fromkeys((name, name.replace("\\", "/"))):
            # a name with its folder is meant as it stands; a bare one lies in the split's own folders before others
            for folder in [*self._likeliest, *(self._rank_of if "/" in text else ())]:
                path = os.path.join(folder, text)
                if os.path.isfile(path):
                    return path
        return None

    def _forgive(self, names: Sequence[Sequence[str]], found: list[Found], pending: list[int]) -> None:
        """Look the names of ``pending`` up among all files; what is found, and why not, goes into ``found``."""
        taken = {os.fspath(item.path): item.name for item in found if item.path is not None}
        parts_of = {i: [(name, split_name(name, self._suffixes)) for name in names[i]] for i in pending}
        listed = {split_name(spellings[0], self._suffixes) for spellings in names}
        repeated = Counter(self._key(parts[-1]) for parts in listed if parts)
        lost: list[int] = []
        for _ in range(_ROUNDS):
            claims: dict[str, list[tuple[int, str, _Fit]]] = defaultdict(list)
            for i in pending:
                name, fits = self._best(parts_of[i], taken, repeated)
                if len(fits) == 1:
                    claims[fits[0].path].append((i, name, fits[0]))
                elif fits:
                    found[i] = _ambiguous(name, [fit.path for fit in fits])
                else:
                    lost.append(i)
            pending = []
            for path, claimants in claims.items():
                least = min(fit.rank for *_, fit in claimants)
                first = [item for item in claimants if item[2].rank == least]
                if len({name for _, name, _ in first}) > 1:
                    for i, name, _ in first:
                        others = [other for _, other, _ in first if other != name]
                        found[i] = Found(
                            None, name, 0, f"{name} may be {path}, but so may {others[0]}; correct one", True
                        )
                else:
                    for i, name, fit in first:
                        found[i] = Found(Path(path), name, fit.rule)
                    taken[path] = first[0][1]
                pending += [item[0] for item in claimants if item[2].rank != least]
            if not pending:
                break
        for rank, i in enumerate([*lost, *pending]):
            found[i] = Found(None, names[i][0], fault=self._explain(names[i][0]) if rank < NUM_HINTS else "")

    def _best(
        self, spellings: Sequence[tuple[str, tuple[str, ...]]], taken: dict[str, str], repeated: Counter[str]
    ) -> tuple[str, list[_Fit]]:
        """The files that fit best, and the spelling they fit."""
        for name, parts in spellings:
            fits = [fit for fit in self._fits(parts, repeated) if taken.get(fit.path, name) == name]
            if fits:
                least = min(fit.rank for fit in fits)
                return name, [fit for fit in fits if fit.rank == least]
        return spellings[0][0], []

    def _fits(self, parts: tuple[str, ...], repeated: Counter[str]) -> Iterator[_Fit]:
        if not parts:
            return
        *folders, base = parts
        key = self._key(base)
        nearer = self._by_two.get((spell_folder(folders[-1]), key), []) if folders else []
        is_unique = repeated[key] < 2
        if folders and not nearer and not is_unique:  # the name alone does not tell which of them is meant
            return
        for path in nearer or self._by_name.get(key, []):
            own = path.split("/")
            rule = find_rule(base, own[-1], self._suffixes)
            if rule is None:
                continue
            length = 1
            while length < len(parts) and length < len(own) and _is_same(parts[-length - 1], own[-length - 1]):
                length += 1
            is_whole = length == len(parts)
            split, least_length = self._split_part(path)
            is_foreign = _is_other_split(split, self._split) and length < least_length
            is_foreign |= bool(self._others) and self._is_others(own[:-length])
            if is_foreign or (folders and length == 1 and not is_unique):
                continue
            is_unread = not has_suffix(base, self._suffixes - IMAGE_SUFFIXES) and not has_suffix(path, IMAGE_SUFFIXES)
            folder_rank = self._rank_of.get(os.path.dirname(path), len(self._rank_of))
            is_own = bool(self._split) and split == self._split
            rank = (not is_whole, not is_own, -length, rule, is_unread, folder_rank)
            yield _Fit(path, rank, rule or (0 if is_whole else _OTHER_FOLDER))

    def _split_part(self, path: str) -> tuple[str, int]:
        """The split of the folder where ``path`` lies, and how many parts of the path reach up to its name."""
        folder = os.path.dirname(path)
        if folder not in self._part_of:
            is_inside = Path(folder).is_relative_to(self._root)
            split, depth = split_part_of(Path(folder), self._root if is_inside else Path(folder).parent.parent)
            self._part_of[folder] = split, depth + 1
        return self._part_of[folder]

    def _is_foreign(self, path: str) -> bool:
        split, _ = self._split_part(path)
        return _is_other_split(split, self._split) or self._is_others(path.split("/")[:-1])

    def _is_others(self, folders: Sequence[str]) -> bool:
        """Whether a folder below the root is another split's own."""
        return not self._others.isdisjoint(map(str.casefold, folders[len(self._root.parts) :]))

    def _key(self, base: str) -> str:
        return spell(
            base if has_suffix(base, self._suffixes) else f"{base}{self._any_suffix}", _LOOSEST, self._suffixes
        )

    @cached_property
    def _any_suffix(self) -> str:
        return min(self._suffixes)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for path in self._files():
            found[self._key(os.path.basename(path))].append(path.replace(os.sep, "/"))
        return dict(found)

    @cached_property
    def _by_two(self) -> dict[tuple[str, str], list[str]]:
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for key, paths in self._by_name.items():
            for path in paths:
                found[spell_folder(os.path.basename(os.path.dirname(path))), key].append(path)
        return dict(found)

    def _explain(self, name: str) -> str:
        """What else may be said of a name that is nowhere: where such a file lies, or what it is near to."""
        parts = split_name(name, self._suffixes)
        if not parts:
            return ""
        for path in self._by_name.get(self._key(parts[-1]), []):
            split, _ = self._split_part(path)
            if self._is_foreign(path):
                owner = f"the split {split}" if _is_other_split(split, self._split) else "another split"
                return (
                    f"one of that name lies in {os.path.dirname(path)}, which is {owner}'s: if it is meant, write its "
                    "folder before the name"
                )
        alike = self._by_digits.get(tuple(re.findall(r"\d+", parts[-1])), [])
        near = nearest(parts[-1], alike[:20_000])
        return f"did you mean {near}?" if near else ""

    @cached_property
    def _by_digits(self) -> dict[tuple[str, ...], list[str]]:
        found: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for paths in self._by_name.values():
            for path in paths:
                if not self._is_foreign(path):
                    base = os.path.basename(path)
                    found[tuple(re.findall(r"\d+", base))].append(base)
        return dict(found)


def image_finder(folders: Sequence[Path], tree: Tree, split: str, others: frozenset[str] = frozenset()) -> FileFinder:
    """A finder of images: in ``folders``, then anywhere in ``tree`` but in the folders of other splits."""
    return FileFinder(
        folders,
        lambda: map(os.fspath, tree.named(*PICTURE_SUFFIXES)),
        split=split,
        root=tree.root,
        suffixes=PICTURE_SUFFIXES,
        others=others,
    )


def say_rule(rule: int) -> str:
    """What was forgiven to find a file by ``rule``."""
    return SPELLINGS.get(rule, "the end of its path")


def _ambiguous(name: str, paths: Sequence[str]) -> Found:
    listed = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
    return Found(
        None,
        name,
        0,
        f"{name} fits {len(paths)} files equally well: {listed}; write the name as it is there, with its folder",
        True,
    )


def _is_same(given: str, folder: str) -> bool:
    return given == folder or spell_folder(given) == spell_folder(folder)


def _is_other_split(split: str, own: str) -> bool:
    if not split or not own or split == own:
        return False
    return {split, own} not in ({"train", "trainval"}, {"val", "trainval"})  # trainval holds both
