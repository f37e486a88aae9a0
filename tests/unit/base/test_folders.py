"""Folders of files: what is no file at all is refused before anything waits for it."""

import json
import os
import socket

import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.base.folders import list_files
from pyrafuse.base.images.reading import read_picture
from pyrafuse.base.paths import check_data
from pyrafuse.data.formats.layout import read_splits


def test_a_pipe_a_socket_and_a_device_are_no_files(tmp_path):
    (tmp_path / "images").mkdir()
    link = tmp_path / "images" / "zeros.jpg"
    link.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"zeros.jpg is a device, and no file; copy what it gives"):
        list_files(tmp_path)
    with pytest.raises(DataError, match="is a device, and no file"):
        read_picture(link)
    link.unlink()
    link.symlink_to("nowhere")
    assert list_files(tmp_path) == (link,)  # told of when it is read
    os.mkfifo(tmp_path / "labels.json")
    with pytest.raises(DataError, match=r"labels.json is a named pipe, and no file"):
        check_data(str(tmp_path / "labels.json"))
    with pytest.raises(DataError, match=r"labels.json is a named pipe"):
        read_splits(str(tmp_path))
    (tmp_path / "labels.json").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "a.sock"))
        with pytest.raises(DataError, match=r"a.sock is a socket"):
            list_files(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: ~nosuchuser/x\nval: x\npath: ~nosuchuser\nnames: [a]", "there is no user ~nosuchuser; write the path"),
        ("train: !!timestamp x\nnames: [a]", "data.yaml is no YAML that can be read: 'x' is no timestamp"),
        ("train: &a [*a]\nnames: [a]", "an anchor within itself"),
        ("train: " + 70_000 * "x" + "\nnames: [a]", "correct path or the entry"),
    ],
)
def test_values_of_a_data_set_s_file_that_fit_nothing_are_told_in_one_sentence(tmp_path, text, said):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError) as raised:
        read_splits(str(tmp_path))
    assert said in str(raised.value)
    assert len(str(raised.value)) < 2000


def test_a_name_longer_than_any_file_s_is_an_image_that_is_missing(tmp_path):
    annotations = {
        "images": [{"id": 1, "file_name": 300 * "a" + ".jpg", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}],
        "categories": [{"id": 1, "name": "a"}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(annotations))
    with pytest.raises(DataError, match="missing image"):
        read_splits(str(tmp_path / "labels.json"))


def test_a_list_of_images_that_is_a_device_is_not_read(tmp_path):
    (tmp_path / "data.yaml").write_text("train: /dev/zero\nval: /dev/zero\nnames: [a]\n")
    with pytest.raises(DataError, match="/dev/zero is a device, and no file"):
        read_splits(str(tmp_path / "data.yaml"))
