"""A checkpoint from a stranger ends as plain values or as a `CheckpointError`: it writes to no memory but its own."""

import io
import os
import pickle
import random
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from pyrafuse.base.errors import CheckpointError
from pyrafuse.core.storage import read_tensors
from pyrafuse.core.torch_files import MAGIC_NUMBER

KINDS = ("zip", "old")


def name(module, word):
    return f"c{module}\n{word}\n".encode()


def value(given):
    """The opcodes of a plain value, without those that frame a pickle."""
    return pickle.dumps(given, 2)[2:-1]


def array(kind, raw, *, shape=(1,), state=(3, "|", None, None, None, -1, -1, 0), fortran=False):
    """Numpy's array of ``raw``, made as numpy's own pickles make it."""
    return (
        name("numpy.core.multiarray", "_reconstruct")
        + name("numpy", "ndarray")
        + b"K\0\x85C\1b\x87R"
        + b"(K\1"
        + value(shape)
        + name("numpy", "dtype")
        + value((kind, False, True))
        + b"R"
        + value(state)
        + b"b"
        + value(fortran)
        + b"B"
        + struct.pack("<I", len(raw))
        + raw
        + b"tb"
    )


def write(path, body, *, kind, storages=()):
    """A file of ``torch.save`` whose pickle is ``body``; of zeros in storages, by (key, bytes)."""
    pickled = b"\x80\x02" + body + b"."
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", pickled)
            for key, size in storages:
                archive.writestr(f"a/data/{key}", bytes(size))
        return path
    parts = [MAGIC_NUMBER, 1001, {"little_endian": True}]
    lead = b"".join(pickle.dumps(part, 2) for part in parts)
    tail = b"".join(struct.pack("<q", size // 4) + bytes(size) for _, size in storages)
    path.write_bytes(lead + pickled + pickle.dumps([key for key, _ in storages], 2) + tail)
    return path


def tensor(size, stride, offset=0, numel=4, function="_rebuild_tensor_v2", key="0"):
    reference = b"(X\7\0\0\0storage" + name("torch", "FloatStorage") + value(key) + value("cpu") + value(numel)
    return (
        name("torch._utils", function)
        + b"("
        + reference
        + b"tQ"
        + value(offset)
        + value(size)
        + value(stride)
        + b"\x89}tR"
    )


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


class TestArrays:
    @pytest.mark.parametrize("flags", [0, 1, 27, 63])
    @pytest.mark.parametrize("code", ["O8", "|O8", "O", "|O"])
    def test_objects_are_none(self, tmp_path, kind, code, flags):
        state = (3, "|", None, None, None, -1, -1, flags)
        path = write(tmp_path / "a.pth", array(code, b"AAAAAAAA", state=state), kind=kind)
        with pytest.raises(CheckpointError, match=r"a\.pth .* it holds numpy's values of kind \|?O8?, which are"):
            read_tensors(path)

    @pytest.mark.parametrize(
        ("code", "state"),
        [
            ("V8", (3, "|", None, ("a",), {"a": ("O8", 0)}, 8, 1, 27)),
            ("f8", (3, "<", None, ("a",), {"a": ("O8", 0)}, 8, 1, 27)),
            ("f8", (3, "<", ("O8", (1,)), None, None, 8, 8, 27)),
            ("f8", (3, "O", None, None, None, -1, -1, 0)),
            ("f8", "<"),
            ("M8[s]", (3, "<", None, None, None, -1, -1, 0)),
            ("f8,O8", None),
            ("(2,)f8", None),
            ("f16", None),
            (8, None),
        ],
    )
    def test_records_sub_arrays_and_times_are_none(self, tmp_path, kind, code, state):
        path = write(tmp_path / "a.pth", array(code, b"AAAAAAAA", state=state), kind=kind)
        with pytest.raises(CheckpointError, match=r"it holds numpy's (values of (a )?kind|records or sub-arrays)"):
            read_tensors(path)

    @pytest.mark.parametrize("name_of_dtype", [("numpy.dtypes", "ObjectDType"), ("numpy", "object_")])
    def test_other_dtypes_are_none(self, tmp_path, kind, name_of_dtype):
        body = array("f8", b"AAAAAAAA").replace(name("numpy", "dtype"), name(*name_of_dtype))
        with pytest.raises(CheckpointError):
            read_tensors(write(tmp_path / "a.pth", body, kind=kind))

    @pytest.mark.parametrize(
        ("shape", "length"),
        [((1,), 7), ((1,), 9), ((2,), 8), ((-1,), 8), ((), 0), ((2**62, 4), 8), ((2**31,), 8), (1, 8), ((0.5,), 8)],
    )
    def test_bytes_of_another_number_than_needed(self, tmp_path, kind, shape, length):
        path = write(tmp_path / "a.pth", array("<f8", bytes(length), shape=shape), kind=kind)
        with pytest.raises(CheckpointError, match=r"it holds numpy's values (of|in|without)"):
            read_tensors(path)

    @pytest.mark.parametrize("wrong", ["ndarray", "matrix", "recarray"])
    def test_a_state_of_another_form(self, tmp_path, kind, wrong):
        body = array("f8", bytes(8)).replace(name("numpy", "ndarray"), name("numpy", wrong))
        body = body if wrong != "ndarray" else body[:-2] + b"NNtb"
        with pytest.raises(CheckpointError, match=r"it holds (numpy's values in a form|arrays of numpy\.\w+, which)"):
            read_tensors(write(tmp_path / "a.pth", body, kind=kind))

    @pytest.mark.parametrize("protocol", [2, 4, 5])
    @pytest.mark.parametrize("dtype", ["<f4", ">f4", ">i8", "<i2", "u1", "?", "f2", ">c8", "<U3", ">U3", "S3"])
    def test_plain_ones_come_as_they_were_saved(self, tmp_path, kind, dtype, protocol):
        flat = np.array(["ab", "é", "xyz", "", "z", "0"]) if dtype[-2:-1] == "U" else np.arange(6) % 3
        given = flat.astype(dtype).reshape(2, 3) if dtype[-2:-1] != "S" else np.array([[b"ab", b"c", b""]], "S3")
        content = {
            "c": given,
            "fortran": np.asfortranarray(given),
            "one": given[0, 0],
            "none": given[:0],
            "at": given[1:2, 1],
        }
        path = tmp_path / "a.pth"
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip", pickle_protocol=protocol)
        read = read_tensors(path)
        for key, expected in content.items():
            if key != "one":
                assert read[key].tolist() == expected.tolist()
                assert read[key].dtype == expected.dtype.newbyteorder("=")
                assert read[key].shape == expected.shape
        assert read["one"] == given[0, 0].item()
        assert type(read["one"]) is type(given[0, 0].item())

    def test_a_truth_of_another_byte_is_true(self, tmp_path, kind):
        read = read_tensors(write(tmp_path / "a.pth", array("b1", b"\x02\x00", shape=(2,)), kind=kind))
        assert read.view(np.uint8).tolist() == [1, 0]


class TestTensors:
    def test_parts_of_a_storage(self, tmp_path, kind):
        row = torch.arange(24.0)
        content = {
            "t": row.view(4, 6).t(),
            "part": row[5:9],
            "spread": row[3].expand(2, 2),
            "none": row[:0].view(0, 7),
            "one": row[23],
            "lasts": torch.nn.Parameter(row[20:]),
            "channels": torch.arange(16.0).view(1, 2, 2, 4).contiguous(memory_format=torch.channels_last),
            "bool": torch.tensor([True, False]),
            "half": torch.arange(3, dtype=torch.bfloat16),
            "tiny": torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
            "complex": torch.tensor([1 + 2j]),
        }
        path = tmp_path / "a.pth"
        if kind == "old":
            del content["tiny"]
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
        read = read_tensors(path)
        assert list(read) == list(content)
        for key, expected in content.items():
            assert read[key].dtype == expected.dtype
            assert read[key].tolist() == expected.tolist()
            assert read[key].stride() == expected.stride()
        assert read["part"].untyped_storage().data_ptr() == read["t"].untyped_storage().data_ptr()

    def test_of_another_order_of_bytes(self, tmp_path):
        path = write(tmp_path / "a.pth", tensor((2,), (1,), numel=2), kind="zip")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("a/data/0", struct.pack(">ff", 1.5, -2))
            archive.writestr("a/byteorder", "big")
        assert read_tensors(path).tolist() == [1.5, -2]

    @pytest.mark.parametrize(
        ("size", "stride", "offset"),
        [
            ((5,), (1,), 0),
            ((4,), (1,), 1),
            ((2,), (4,), 0),
            ((2, 2), (2, 2), 1),
            ((1,), (1,), -1),
            ((2,), (-1,), 3),
            ((-1,), (1,), 0),
            ((2**62,), (0,), 0),
            ((2**40,), (0,), 0),
            ((2**16, 2**16), (0, 0), 0),
            ((1,), (2**62,), 0),
            ((2,), (2**62,), 0),
            ((1,), (), 0),
            ((1.0,), (1,), 0),
            ((1,) * 65, (1,) * 65, 0),
        ],
    )
    def test_outside_their_storage(self, tmp_path, kind, size, stride, offset):
        path = write(tmp_path / "a.pth", tensor(size, stride, offset), kind=kind, storages=[("0", 16)])
        with pytest.raises(CheckpointError, match=r"it holds tensors (of|that|in)"):
            read_tensors(path)

    @pytest.mark.parametrize(
        ("numel", "storages", "pattern"),
        [
            (5, [("0", 16)], "storages that end behind their place"),
            (4, [("1", 16)], "tensors without what is stored|is no checkpoint"),
            (-1, [("0", 16)], "storages of torch.FloatStorage, or of a size"),
            (2**70, [("0", 16)], "storages that end behind"),
        ],
    )
    def test_storages_that_are_not_there(self, tmp_path, kind, numel, storages, pattern):
        path = write(tmp_path / "a.pth", tensor((1,), (1,), numel=numel), kind=kind, storages=storages)
        with pytest.raises(CheckpointError, match=pattern):
            read_tensors(path)

    @pytest.mark.parametrize("function", ["_rebuild_qtensor", "_rebuild_nested_tensor", "_rebuild_sparse_tensor"])
    def test_of_other_kinds_are_refused_by_name(self, tmp_path, kind, function):
        path = write(tmp_path / "a.pth", tensor((1,), (1,), function=function), kind=kind, storages=[("0", 16)])
        with pytest.raises(CheckpointError, match=rf"not loaded: torch\._utils\.{function}\. Nothing was executed"):
            read_tensors(path)

    @pytest.mark.parametrize("cut", range(8, 17, 4))
    def test_an_old_file_that_ends_too_soon(self, tmp_path, cut):
        path = write(tmp_path / "a.pth", tensor((4,), (1,)), kind="old", storages=[("0", 16)])
        path.write_bytes(path.read_bytes()[:-cut])
        with pytest.raises(CheckpointError, match="storages that end behind the file"):
            read_tensors(path)


class TestArchives:
    def test_compressed(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", b"\x80\x02" + b"0" * 10**6)
        with pytest.raises(CheckpointError, match=r"compressed or encrypted entries; pack its folder again"):
            read_tensors(tmp_path / "a.pth")

    @pytest.mark.parametrize("place", [10**6, 2**32 - 2, 3])
    def test_entries_elsewhere(self, tmp_path, place):
        path = write(tmp_path / "a.pth", tensor((1,), (1,)), kind="zip", storages=[("0", 16)])
        raw = bytearray(path.read_bytes())
        at = raw.rfind(b"PK\1\2")
        raw[at + 42 : at + 46] = struct.pack("<I", place)
        path.write_bytes(raw)
        with pytest.raises(CheckpointError):
            read_tensors(path)

    def test_entries_on_one_another(self, tmp_path):
        path = write(tmp_path / "a.pth", tensor((1,), (1,)), kind="zip", storages=[("0", 4000), ("1", 4000)])
        raw = bytearray(path.read_bytes())
        begin, at = raw.find(b"PK\3\4", 10), raw.rfind(b"PK\1\2")
        raw[at + 42 : at + 46] = struct.pack("<I", begin - 1)
        path.write_bytes(raw)
        with pytest.raises(CheckpointError):
            read_tensors(path)

    def test_another_archive(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
            archive.writestr("deep/er/data.pkl", b"\x80\x02}.")
        with pytest.raises(CheckpointError, match=r"a zip archive that torch\.save has not written"):
            read_tensors(tmp_path / "a.pth")


DEEP = b"]" * 201 + b"a" * 200
BOMB = b"]" + b"".join(b"q" + bytes([i]) + b"](" + b"h" + bytes([i]) + b"2" * 9 + b"e" for i in range(30))
HASHED = b"K\1" + b"2\x86" * 60


class TestPickles:
    @pytest.mark.parametrize(
        ("body", "pattern"),
        [
            (DEEP, "nested more than 200 deep"),
            (BOMB, "unfold to more than 10,000,000"),
            (b"}" + HASHED + b"K\1s", "keys that are no plain values"),
            (name("builtins", "set") + b"]" + HASHED + b"a\x85R", "keys that are no plain values"),
            (name("collections", "OrderedDict") + b"]]" + HASHED + b"aK\1aa\x85R", "keys that are no plain"),
            (b"}" + value(2**61 - 1) + b"Ns", "keys that are no plain values"),
            (b"\x8b" + struct.pack("<I", 200) + b"\x7f" * 200, "a whole number of more than 1,024 bits"),
            (name("builtins", "bytearray") + value((10**15,)) + b"R", r"values of builtins\.bytearray that cannot be"),
            (name("builtins", "bytes") + value((10**15,)) + b"R", r"values of builtins\.bytes that cannot be"),
            (name("_codecs", "encode") + value(("a", "rot13")) + b"R", r"values of _codecs\.encode that cannot be"),
            (
                name("builtins", "getattr") + name("os", "x") + value("system") + b"\x86R" + value(("true",)) + b"R",
                "os",
            ),
            (name("os", "system") + name("os", "system") + b"b", "is no checkpoint"),
            (name("collections", "OrderedDict") + b"N}" + value("__setstate__") + b"K\1s\x86b", "is no checkpoint"),
            (name("torch._utils", "_rebuild_parameter") + b"K\1\x85R", "parameters that are no tensors"),
            (name("torch._utils", "_rebuild_tensor_v2") + b"(K\1K\1))tR", "tensors in a form that is not read"),
            (b"\x82\1", "is no checkpoint"),
            (b"\x97", "is no checkpoint"),
            (value("x") + b"Q", "references to what is no storage"),
            (b"h\7", "is no checkpoint"),
            (b"", "is no checkpoint"),
            (b"\x86", "is no checkpoint"),
        ],
    )
    def test_tricks(self, tmp_path, kind, body, pattern):
        with pytest.raises(CheckpointError, match=pattern):
            read_tensors(write(tmp_path / "a.pth", body, kind=kind))

    @pytest.mark.parametrize(
        "call",
        [
            ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("ctypes", "CDLL"),
            ("builtins", "__import__"), ("pickle", "loads"), ("torch.storage", "_load_from_bytes"), ("torch", "load"),
            ("torch.hub", "load"), ("importlib", "import_module"), ("numpy", "fromfile"), ("runpy", "run_path"),
            ("numpy.core.multiarray", "fromstring"), ("operator", "attrgetter"), ("zipimport", "zipimporter"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("way", [b"R", b"\x81"])
    def test_calls_are_refused_by_name(self, tmp_path, kind, call, way):
        is_class_of_others = way == b"\x81" and call[0].partition(".")[0] in {"torch", "numpy"}
        path = write(tmp_path / "a.pth", name(*call) + value(("x",)) + way, kind=kind)
        if is_class_of_others:  # an object without a call: what it would be made of is all that is left
            assert read_tensors(path) == "x"
            return
        with pytest.raises(CheckpointError, match=rf"not loaded: {call[0]}\.{call[1]}\. Nothing was executed"):
            read_tensors(path)

    def test_names_give_no_orders_to_a_terminal(self, tmp_path, kind):
        body = b"".join(b"\x8c\2os\x8c\6\x1b[31m" + bytes([65 + i]) + b"\x93)R0" for i in range(20)) + b"N"
        with pytest.raises(CheckpointError) as caught:
            read_tensors(write(tmp_path / "a.pth", body, kind=kind))
        assert "not loaded: os.\\x1b[31mA, os.\\x1b[31mB, " in str(caught.value)
        assert "os.\\x1b[31mH and 12 more. Nothing was executed" in str(caught.value)

    def test_what_holds_itself_is_nothing_inside(self, tmp_path, kind):
        path = write(tmp_path / "a.pth", b"]q\0K\1ah\0a", kind=kind)
        assert read_tensors(path) == [1, None]

    def test_no_module_is_imported(self, tmp_path, kind, monkeypatch):
        (tmp_path / "brings_a_file.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\nclass Plain: pass\n")
        monkeypatch.syspath_prepend(tmp_path)
        body = name("brings_a_file", "Plain") + b")\x81}" + value("lr") + value(0.5) + b"sb"
        assert read_tensors(write(tmp_path / "a.pth", body, kind=kind)) == {"lr": 0.5}
        assert not (tmp_path / "imported").exists()


PLAIN = (type(None), bool, int, float, complex, str, bytes, np.ndarray, torch.Tensor)


def look(read):
    """Touch every value, so that one that points elsewhere is found out."""
    if isinstance(read, dict):
        return sum(look(k) + look(v) for k, v in read.items())
    if isinstance(read, list | tuple | set):
        return sum(map(look, read))
    assert isinstance(read, PLAIN), type(read)
    if isinstance(read, np.ndarray):
        assert read.dtype.kind in "biufcUS"
        return len(read.tobytes())
    if isinstance(read, torch.Tensor):
        return (
            int(read.cpu().reshape(-1)[:1000].contiguous().view(torch.uint8).sum()) if read.ndim and read.numel() else 1
        )
    return len(repr(read))


def seeds(folder):
    generator = np.random.default_rng(0)
    content = {
        "state_dict": OrderedDict(a=torch.arange(6.0).view(2, 3), b=torch.ones(2, dtype=torch.bool)),
        "array": generator.random(3),
        "texts": np.array(["a", "bc"]),
        "number": np.float32(0.5),
        "more": [1, -2, 0.5, "x", b"y", (True, None), {3}, 2**70, slice(1, 2)],
    }
    for kind in KINDS:
        for protocol in (2, 4):
            path = folder / f"{kind}{protocol}.pth"
            torch.save(content, path, _use_new_zipfile_serialization=kind == "zip", pickle_protocol=protocol)
            yield kind, path.read_bytes()
    yield "zip", write(folder / "s.pth", array("<f8", bytes(8)) + b"0" + tensor((1,), (1,)), kind="zip").read_bytes()
    yield "old", write(folder / "s.pth", array("<f8", bytes(8)) + b"0" + tensor((1,), (1,)), kind="old").read_bytes()


def changed(raw, chance):
    """``raw`` with a few bytes changed, cut out, or copied to elsewhere."""
    raw = bytearray(raw)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        at = chance.randrange(len(raw))
        way = chance.randrange(4)
        if way == 0:
            raw[at] = chance.randrange(256)
        elif way == 1:
            raw[at] = chance.choice(b"(.0123NKRb}]tsuea\x81\x85\x86\x87\x93\x94hqcQ\x88")
        elif way == 2:
            del raw[at : at + chance.randrange(1, 9)]
        else:
            begin = chance.randrange(len(raw))
            raw[at:at] = raw[begin : begin + chance.randrange(1, 40)]
    return bytes(raw)


def repacked(raw, chance):
    """A zip file whose pickle alone is changed."""
    output = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as before, zipfile.ZipFile(output, "w") as after:
        for info in before.infolist():
            content = before.read(info)
            after.writestr(info.filename, changed(content, chance) if info.filename.endswith("data.pkl") else content)
    return output.getvalue()


@pytest.mark.filterwarnings("ignore")
def test_random_changes_end_in_plain_values_or_an_error(tmp_path):
    chance = random.Random(int(os.environ.get("PYRAFUSE_FUZZ_SEED", "0")))
    given = list(seeds(tmp_path))
    ends = {"read": 0, "refused": 0}
    for number in range(int(os.environ.get("PYRAFUSE_FUZZ_FILES", "1500"))):
        kind, raw = chance.choice(given)
        path = tmp_path / "fuzz.pth"
        path.write_bytes(repacked(raw, chance) if kind == "zip" and number % 4 else changed(raw, chance))
        try:
            read = read_tensors(path)
        except CheckpointError:
            ends["refused"] += 1
        else:
            assert look(read) >= 0
            ends["read"] += 1
    assert min(ends.values()) > sum(ends.values()) / 100
