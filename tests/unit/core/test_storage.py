"""Files come whole or not at all, and reading them executes nothing."""

import errno
import os
import pickle
import stat
from fractions import Fraction
from operator import itemgetter

import pytest
import torch
from safetensors.torch import save_file

from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.base.paths import check_writable
from pyrafuse.base.writing import write_atomically, write_text
from pyrafuse.core.storage import read_tensors, write_tensors


class TestWriting:
    def test_a_text_may_name_files_whose_bytes_are_no_utf_8(self, tmp_path):
        write_text(tmp_path / "a.html", "海 \udcff.jpg")
        assert (tmp_path / "a.html").read_bytes() == "海 \\udcff.jpg".encode()

    def test_new_folders(self, tmp_path):
        write_text(tmp_path / "a" / "b" / "c.txt", "größer\n")
        assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "größer\n".encode()

    def test_mode_follows_the_umask(self, tmp_path):
        before = os.umask(0o027)
        try:
            write_text(tmp_path / "a.txt", "x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
    def test_a_disk_that_refuses(self, tmp_path, monkeypatch, number):
        path = tmp_path / "a.txt"
        write_text(path, "old")

        def fsync(handle):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(PyrafuseError, match=f"cannot write .*a.txt: {os.strerror(number)}; free space or choose"):
            write_text(path, "new")
        assert path.read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]

    @pytest.mark.parametrize("num_bytes", [0, 1, 1000, 8192, 40_000, 40_500])
    def test_a_disk_that_is_full_before_the_last_tensor(self, tmp_path, full_disk, num_bytes):
        path = tmp_path / "a.ckpt"
        write_tensors(path, {"epoch": 1})
        with full_disk(num_bytes), pytest.raises(PyrafuseError, match=r"cannot write .*a\.ckpt: File too large; free"):
            write_tensors(path, {"epoch": 2, "a": torch.zeros(10_000)})
        assert read_tensors(path) == {"epoch": 1}
        assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]

    def test_content_that_cannot_be_written(self, tmp_path):
        with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
            write_tensors(tmp_path / "a.ckpt", {"a": lambda: None})
        assert not any(tmp_path.iterdir())

    def test_an_error_of_the_writer(self, tmp_path):
        path = tmp_path / "a.bin"
        path.write_bytes(b"old")
        with pytest.raises(RuntimeError, match="own"), write_atomically(path) as stream:  # noqa: PT012
            stream.write(b"half")
            raise RuntimeError("its own")
        assert path.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]

    def test_a_file_where_the_folder_should_be(self, tmp_path):
        (tmp_path / "a").touch()
        with pytest.raises(PyrafuseError, match=r"cannot write .*: .*; free space or choose another place"):
            write_text(tmp_path / "a" / "b.txt", "x")


class Code:
    """An object whose unpickling runs code: the oldest trick."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


class TestPlaces:
    def test_what_could_be_written(self, tmp_path):
        check_writable(tmp_path / "new" / "folder" / "a.json")
        check_writable(tmp_path, is_folder=True)
        assert not any(tmp_path.iterdir())

    def test_what_could_not(self, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        with pytest.raises(PyrafuseError, match=r"it is a folder; name a file in it"):
            check_writable(tmp_path)
        for is_folder, path in ((True, tmp_path / "file"), (False, tmp_path / "file" / "a" / "b.json")):
            with pytest.raises(PyrafuseError, match=r"/file is a file, and no folder; choose another place"):
                check_writable(path, is_folder=is_folder)
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(PyrafuseError, match=f"{tmp_path} may not be written to; choose another place"):
            check_writable(tmp_path / "a" / "b")


class TestReading:
    def test_tensors(self, tmp_path):
        content = {"state_dict": {"a": torch.arange(3)}, "epoch": 4, "names": ["x"], "rate": 0.5, "nothing": None}
        for name, is_zip in (("new.pth", True), ("old.pth", False)):
            torch.save(content, tmp_path / name, _use_new_zipfile_serialization=is_zip)
            got = read_tensors(tmp_path / name)
            assert torch.equal(got["state_dict"]["a"], torch.arange(3))
            assert (got["epoch"], got["names"], got["rate"], got["nothing"]) == (4, ["x"], 0.5, None)

    def test_safetensors(self, tmp_path):
        save_file({"a": torch.arange(3)}, tmp_path / "a.safetensors")
        assert torch.equal(read_tensors(str(tmp_path / "a.safetensors"))["a"], torch.arange(3))

    @pytest.mark.parametrize("is_zip", [True, False])
    def test_code_is_refused_and_not_executed(self, tmp_path, is_zip):
        proof = tmp_path / "executed"
        path = tmp_path / "bad.pth"
        torch.save({"a": torch.zeros(1), "b": Code(proof)}, path, _use_new_zipfile_serialization=is_zip)
        with pytest.raises(CheckpointError, match=r"bad\.pth") as caught:
            read_tensors(path)
        assert not proof.exists()
        assert "posix.mkdir" in str(caught.value)
        assert "Nothing was executed; save its state_dict alone" in str(caught.value)

    @pytest.mark.parametrize("tail", [b"", b"what follows is no pickle"])
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_plain_pickle_is_refused_and_not_executed(self, tmp_path, protocol, tail):
        proof = tmp_path / "executed"
        content = {"mkdir": "posix", "a": [Code(proof), Code(proof)], "third": Fraction(1, 3)}
        (tmp_path / "bad.pkl").write_bytes(pickle.dumps(content, protocol) + tail)
        with pytest.raises(CheckpointError) as caught:
            read_tensors(tmp_path / "bad.pkl")
        assert "bad.pkl holds code or objects that are not loaded: fractions.Fraction, posix.mkdir. Nothing" in str(
            caught.value
        )
        assert not proof.exists()

    @pytest.mark.parametrize("protocol", [2, 4])
    @pytest.mark.parametrize("is_zip", [True, False])
    def test_objects_are_named(self, tmp_path, is_zip, protocol):
        content = {"opt": Fraction(1, 3), "get": itemgetter(1), "a": torch.zeros(1)}
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol)
        names = r"not loaded: fractions\.Fraction, operator\.itemgetter\. Nothing was executed"
        with pytest.raises(CheckpointError, match=names):
            read_tensors(tmp_path / "a.pth")

    def test_missing(self, tmp_path):
        for path in (tmp_path / "best.pth", tmp_path / "none" / "a.ckpt"):
            with pytest.raises(CheckpointError, match=rf"no such checkpoint: {path}; a training leaves best\.ckpt in"):
                read_tensors(path)
        (tmp_path / "best.ckpt").touch()
        with pytest.raises(CheckpointError, match=r"best\.pth; did you mean /.*/best\.ckpt\?"):
            read_tensors(tmp_path / "best.pth")

    def test_a_folder(self, tmp_path):
        (tmp_path / ".last.ckpt.half.ckpt").touch()
        with pytest.raises(CheckpointError, match=r"is a folder without best\.ckpt or .*; there is no checkpoint"):
            read_tensors(tmp_path)
        torch.save({"a": 1}, tmp_path / "other.pth")
        with pytest.raises(CheckpointError, match=r"name a file in it, .*/other\.pth say"):
            read_tensors(tmp_path)
        for number, name in enumerate(("last.ckpt", "best.ckpt")):  # the folder of a run
            torch.save({"a": number}, tmp_path / name)
            assert read_tensors(tmp_path) == {"a": number}

    @pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
    def test_empty(self, tmp_path, name):
        (tmp_path / name).touch()
        with pytest.raises(CheckpointError, match=f"{name} is empty; copy it anew, or name another file"):
            read_tensors(tmp_path / name)

    @pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
    @pytest.mark.parametrize("left", [1, 20, 500, 3000])
    def test_cut_off(self, tmp_path, name, left):
        path = tmp_path / name
        if name.endswith("pth"):
            torch.save({"a": torch.arange(1000)}, path)
        else:
            save_file({"a": torch.arange(1000)}, path)
        path.write_bytes(path.read_bytes()[:left])
        with pytest.raises(CheckpointError, match=rf"{name} \({left:,} bytes\) is no checkpoint.*damaged; copy it"):
            read_tensors(path)

    @pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(100), b"hello world\n", b"\x80\x02}q\x00."])
    def test_other_files(self, tmp_path, content):
        path = tmp_path / "a.pth"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"a\.pth \(.*\) is no checkpoint"):
            read_tensors(path)
