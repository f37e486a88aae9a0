"""A sharded data set at an address: its index is fetched once into the cache, its shards stay where they are."""

import hashlib
import os
from pathlib import Path

from pyrafuse.base.errors import DataError
from pyrafuse.base.folders import cache_folder
from pyrafuse.base.members import ADDRESS_FILE, fetch
from pyrafuse.base.printable import printable
from pyrafuse.base.writing import write_atomically, write_text
from pyrafuse.data.sharding.index import INDEX_FILE, MOST_BYTES, checksum, read_manifest, table_files


def fetch_index(address: str) -> Path:
    """The folder of the cache that stands for the data set at ``address``.

    Tables that are there already, of this very index, are not fetched again.

    Raises:
        DataError: If there is no index, or it cannot be read.
        MissingLibraryError: If fsspec is not installed.
    """
    address = address.rstrip("/")
    content = fetch(f"{address}/{INDEX_FILE}", start=0, end=MOST_BYTES)
    digest = hashlib.sha256(os.fsencode(address) + b"\0" + content).hexdigest()
    folder = cache_folder() / "shards" / digest[:32]
    with write_atomically(folder / INDEX_FILE) as stream:
        stream.write(content)
    manifest = read_manifest(folder)
    for split, facts in manifest.splits.items():
        for kind, (name, rows) in table_files(split).items():
            table, path = facts.tables[kind], folder / name
            if path.is_file() and checksum(path) == table.sha256:
                continue
            size = table.rows * rows.itemsize
            received = fetch(f"{address}/{name}", start=0, end=size) if size else b""
            if len(received) != size:
                raise DataError(
                    f"{printable(address)}/{name} has {len(received):,} bytes of {size:,}: copy the index anew"
                )
            with write_atomically(path) as stream:
                stream.write(received)
    write_text(folder / ADDRESS_FILE, address)  # last: where it lies, the index is whole
    return folder
