"""Shards: a folder of tar files with an index, or its address; see `pyrafuse.data.sharding`."""

from functools import partial
from pathlib import Path

from pyrafuse.base.records import DetectionData
from pyrafuse.data.formats.registry import FORMATS, AnnotationFormat, DataSet
from pyrafuse.data.reading.folders import Tree
from pyrafuse.data.reading.problems import Reading
from pyrafuse.data.reading.rules import DEFAULT_RULES, ReadingRules
from pyrafuse.data.sharding.fetching import fetch_index
from pyrafuse.data.sharding.index import INDEX_FILE, Manifest, ShardRecords, read_manifest, read_split


@FORMATS.register("shards")
class ShardsFormat(AnnotationFormat):
    """Tar shards, told by the file of their index."""

    title = "tar shards"
    looked_for = f"tar shards ({INDEX_FILE})"
    rank = 10
    set_aside = ("set aside", "annotate them as objects before the shards are written")

    def open(self, file: Path) -> DataSet | None:
        return open_shards(file.parent) if file.name == INDEX_FILE else None

    def find_description(self, tree: Tree) -> DataSet | None:
        return open_shards(tree.root) if (tree.root / INDEX_FILE).is_file() else None

    def find(self, tree: Tree) -> DataSet | None:  # noqa: ARG002
        return None


def open_shards(folder: Path) -> DataSet:
    """The sharded data set in ``folder``.

    Raises:
        DataError: If its index cannot be read, or says what cannot be.
    """
    manifest = read_manifest(folder)
    return DataSet(folder, {split: partial(_read, folder, split, manifest) for split in manifest.splits}, Tree(folder))


def open_address(address: str) -> DataSet:
    """The sharded data set at ``address``, whose index is fetched.

    Raises:
        DataError: If it cannot be read.
    """
    return open_shards(fetch_index(address))


def _read(folder: Path, split: str, manifest: Manifest, rules: ReadingRules = DEFAULT_RULES) -> Reading:  # noqa: ARG001
    records = ShardRecords(read_split(folder, split, manifest))
    return Reading(DetectionData(records, manifest.classes, manifest.category_ids, "shards", split), ())
