import http.server
import os
import threading
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base.errors import DataError
from pyrafuse.base.images import sources
from pyrafuse.base.images.sources import Frame, open_source

RED = (255, 0, 0)


def write_image(path: Path, color: tuple[int, int, int] = RED, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def write_video(path: Path, levels: range = range(0, 200, 20), fps: float = 10.0) -> Path:
    """A video whose frame i is of one grey, ``levels[i]``, with a red left half."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (64, 48))
    assert writer.isOpened()
    for level in levels:
        frame = np.full((48, 64, 3), level, np.uint8)
        frame[:, :32] = (0, 0, 255)  # OpenCV's BGR
        writer.write(frame)
    writer.release()
    return path


def only(source) -> Frame:
    (frame,) = source
    return frame


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/cut.png":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"\x89PNG")
        elif self.path == "/slow.png":
            threading.Event().wait(0.6)
        elif self.path == "/endless.png":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(100):
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                pass
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path):
    """The address of a server of the files in tmp_path/www."""
    root = tmp_path / "www"
    root.mkdir()
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *given: Handler(*given, directory=str(root))
    ) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_an_image_file(tmp_path):
    path = write_image(tmp_path / "a.png")
    for given in (path, str(path)):
        source = open_source(given)
        assert (source.num_frames, source.is_stream) == (1, False)
        frame = only(source)
        assert (frame.name, frame.error, frame.index, frame.fps) == (str(path), None, 0, None)
        assert frame.image is not None
        assert frame.image.shape == (4, 6, 3)
        assert frame.image.dtype == np.uint8
        assert frame.image[0, 0].tolist() == [255, 0, 0]
        assert only(source).name == str(path)  # a second time


def test_a_folder_is_read_to_its_bottom_in_natural_order_and_a_fault_stops_nothing(tmp_path):
    for name in ("img10.png", "img2.png", "b/img1.jpg", ".hidden/img3.png", "._img4.png"):
        write_image(tmp_path / name)
    (tmp_path / "img3.jpg").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image either")
    source = open_source(tmp_path)
    frames = list(source)
    assert (source.num_frames, source.root) == (4, tmp_path)
    assert [Path(f.name).relative_to(tmp_path).as_posix() for f in frames] == [
        "b/img1.jpg",
        "img2.png",
        "img3.jpg",
        "img10.png",
    ]
    assert [f.index for f in frames] == [0, 1, 2, 3]
    assert [f.image is None for f in frames] == [False, False, True, False]
    assert frames[2].error is not None
    assert "img3.jpg" in frames[2].error


def test_results_of_a_former_call_are_no_source(tmp_path):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "out" / "images" / "a.png")
    write_image(tmp_path / "outer" / "b.png")
    source = open_source(tmp_path, leave_out=tmp_path / "out")
    assert [frame.name for frame in source] == [str(tmp_path / "a.png"), str(tmp_path / "outer" / "b.png")]
    assert source.num_frames == 2
    assert source.passed_over == {f"in {tmp_path / 'out'}, the folder of results": 1}
    assert open_source(tmp_path / "outer", leave_out=tmp_path).num_frames == 1
    with pytest.raises(DataError, match="would lie among the images they are of; choose another output"):
        open_source(tmp_path / "outer", leave_out=tmp_path / "outer")


def test_a_fault_is_told_on_one_line_whatever_the_file_is_called(tmp_path, capfd):
    for name in (b"new\nline.jpg", b"bad\xff.jpg", b"a\x1b[2J.gif"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"nonsense")
    (tmp_path / "link.png").symlink_to("nowhere.png")
    (tmp_path / "folder.png").mkdir()
    source = open_source(tmp_path)
    frames = {f.name.removeprefix(f"{tmp_path}/"): f.error for f in source}
    known = "is no image that can be read (JPEG, PNG, WebP, BMP, TIFF ...); remove or replace it"
    assert frames == {
        "new\nline.jpg": f"{tmp_path}/new\\nline.jpg {known}",
        "bad\udcff.jpg": f"{tmp_path}/bad\\udcff.jpg {known}",
        "a\x1b[2J.gif": f"{tmp_path}/a\\x1b[2J.gif is no video that can be read, or is damaged; remove or replace it",
        "link.png": f"{tmp_path}/link.png is a link to nowhere.png, which is not there; mend or remove it",
    }
    assert capfd.readouterr() == ("", "")  # nor has OpenCV a word of its own


def test_a_glob(tmp_path):
    for name in ("a1.png", "a2.png", "b1.png", "deep/a3.png"):
        write_image(tmp_path / name)
    assert [Path(f.name).name for f in open_source(f"{tmp_path}/a*.png")] == ["a1.png", "a2.png"]
    assert [Path(f.name).name for f in open_source(f"{tmp_path}/**/a*.png")] == ["a1.png", "a2.png", "a3.png"]
    with pytest.raises(DataError, match=r"no file matches '.*c\*\.png'"):
        open_source(f"{tmp_path}/c*.png")


def test_a_file_whose_name_looks_like_a_glob_or_a_camera(tmp_path, monkeypatch):
    assert only(open_source(write_image(tmp_path / "a[1].png"))).error is None
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "0.png").rename(tmp_path / "0")
    assert only(open_source("0")).error is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("cta.png", "no such file or folder: {0}/cta.png; did you mean {0}/cat.png?"),
        ("photoes/x/y.png", "did you mean {0}/photos?"),
        ("zzz", "{0} holds no 'zzz'"),
    ],
)
def test_no_such_path_names_the_nearest(tmp_path, given, message):
    write_image(tmp_path / "cat.png")
    write_image(tmp_path / "photos" / "a.png")
    with pytest.raises(DataError) as raised:
        open_source(tmp_path / given)
    assert message.format(tmp_path) in str(raised.value)


def test_no_such_relative_path(tmp_path, monkeypatch):
    write_image(tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no such file or folder: cta.png; did you mean cat.png\?"):
        open_source("cta.png")


def test_an_empty_folder_names_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"no images or videos in .*; passed over: 1 \.txt"):
        open_source(tmp_path)


@pytest.mark.parametrize(("stride", "numbers"), [(1, range(10)), (4, range(0, 10, 4))])
def test_a_video(tmp_path, stride, numbers):
    path = write_video(tmp_path / "clip.mp4")
    source = open_source(path, stride=stride)
    frames = list(source)
    assert source.num_frames == len(frames) == len(numbers)
    assert not source.is_stream
    assert [f.name for f in frames] == [f"{path}#{number}" for number in numbers]
    assert {f.fps for f in frames} == {10.0 / stride}
    for frame, number in zip(frames, numbers, strict=True):
        assert frame.image is not None
        assert frame.image.shape == (48, 64, 3)
        np.testing.assert_allclose(frame.image[:, 40:].mean(), number * 20, atol=6)
        np.testing.assert_allclose(frame.image[:, :24].mean((0, 1)), (255, 0, 0), atol=12)  # red first: RGB


def test_a_damaged_video_is_a_fault_among_others(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    write_image(tmp_path / "b.png")
    first, second = open_source(tmp_path)
    assert first.error is not None
    assert "a.mp4 is no video that can be read" in first.error
    assert second.error is None


def test_a_camera_that_is_not_there():
    for given in (97, "97"):
        with pytest.raises(DataError, match="camera 97 cannot be opened"):
            open_source(given)


def test_a_stride_below_one():
    with pytest.raises(DataError, match="stride must be 1 or more, got 0"):
        open_source("a.mp4", stride=0)


def test_an_image_from_a_server(tmp_path, server):
    write_image(tmp_path / "www" / "a.png")
    source = open_source(f"{server}/a.png")
    frame = only(source)
    assert (frame.name, source.num_frames) == (f"{server}/a.png", 1)
    assert frame.image is not None
    assert frame.image[0, 0].tolist() == [255, 0, 0]


def test_a_video_from_a_server(tmp_path, server):
    write_video(tmp_path / "www" / "clip.mp4")
    frames = list(open_source(f"{server}/clip.mp4", stride=5))
    assert [f.name for f in frames] == [f"{server}/clip.mp4#0", f"{server}/clip.mp4#5"]


def test_a_download_leaves_nothing_behind(tmp_path, server, monkeypatch):
    monkeypatch.setattr(sources.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    write_image(tmp_path / "www" / "a.png")
    source = open_source(f"{server}/a.png")
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    assert only(source).error is None
    del source
    with pytest.raises(DataError):
        open_source(f"{server}/cut.png")
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none.png", "cannot download {0}/none.png: 404"),
        ("/cut.png", "{0}/cut.png broke off after 4 of 100,000 bytes"),
        ("/endless.png", "{0}/endless.png is larger than 1,000,000 bytes"),
        ("/slow.png", "cannot download {0}/slow.png: timed out"),
    ],
)
def test_a_download_that_fails(server, monkeypatch, path, message):
    monkeypatch.setattr(sources, "MAX_DOWNLOAD_BYTES", 1_000_000)
    monkeypatch.setattr(sources, "TIMEOUT_S", 0.3)
    with pytest.raises(DataError) as raised:
        open_source(server + path)
    assert str(raised.value).startswith(message.format(server))


def test_what_is_downloaded_but_no_image_is_named_by_its_address(tmp_path, server):
    (tmp_path / "www" / "page.html").write_text("<html>")
    frame = only(open_source(f"{server}/page.html"))
    assert frame.image is None
    assert frame.error is not None
    assert frame.error.startswith(f"{server}/page.html is no image")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a.png", "s3://bucket/a.png", "file:///etc/hostname"])
def test_other_schemes_are_refused(url):
    with pytest.raises(DataError, match="images and videos come by http:// and https://, streams by rtmp, "):
        open_source(url)


def test_no_server_is_an_error_and_one_fault_of_a_list(tmp_path):
    dead = "http://127.0.0.1:9/a.png"
    with pytest.raises(DataError, match=r"cannot download http://127\.0\.0\.1:9/a\.png: .*refused"):
        open_source(dead)
    source = open_source([dead, write_image(tmp_path / "b.png")])
    first, second = source
    assert source.num_frames == 2
    assert first.error is not None
    assert first.name == dead
    assert (second.error, second.index) == (None, 1)
    broken, _ = open_source(["http://[::1", tmp_path / "b.png"])
    assert broken.error == "http://[::1 is no address: Invalid IPv6 URL; correct it"


def test_arrays_tensors_and_pillow_images_in_one_list():
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 1] = RED
    as_tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    given = [pixels, as_tensor, as_tensor / 255, Image.fromarray(pixels), pixels[..., 0], torch.stack([as_tensor] * 2)]
    source = open_source(given)
    frames = list(source)
    assert source.num_frames == 7
    assert [f.name for f in frames] == ["image0", "image1", "image2", "image3", "image4", "image5.0", "image5.1"]
    for frame in frames:
        expected = np.repeat(pixels[..., :1], 3, axis=2) if frame.name == "image4" else pixels
        np.testing.assert_array_equal(frame.image, expected)
    assert frames[0].image is not pixels


def test_a_transparent_pillow_image_shows_white():
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    np.testing.assert_array_equal(only(open_source(image)).image, np.full((1, 2, 3), 255, np.uint8))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((3, 4, 6), np.uint8), r"an array of shape \(3, 4, 6\) is no image"),
        (torch.zeros(4, 6, 3), r"a tensor of shape \(4, 6, 3\) is no image"),
        (np.full((4, 6, 3), 200.5), "floating-point pixels from 200.5 to 200.5: their white is unknown"),
        (np.full((4, 6, 3), -0.5), "floating-point pixels from -0.5 to -0.5"),
        (np.full((4, 6, 3), np.nan), "floating-point pixels from nan"),
        (np.full((4, 6, 3), 70000), "an array holds pixels from 70000 to 70000: only 0 to 65535"),
        (np.full((4, 6, 3), -1), "an array holds pixels from -1 to -1"),
        (np.zeros((4, 6, 3), np.complex64), "values of type complex64"),
        (np.full((4, 6, 3), "a"), "values of type <U1"),
        (np.zeros((4, 6, 2), np.uint8), r"an array of shape \(4, 6, 2\) is no image"),
        (torch.zeros(2, 4, 6), r"a tensor of shape \(2, 4, 6\) is no image"),
        (torch.zeros(0, 3, 4, 6), "has no pixels"),
        (b"a.jpg", "a bytes is no source"),
        (np.zeros((0, 6, 3), np.uint8), "has no pixels"),
        ({}, "a dict is no source"),
        (True, "a bool is no source"),
        ([], "an empty list is no source"),
    ],
)
def test_what_is_no_image(given, message):
    with pytest.raises(DataError, match=message):
        open_source(given)


RAMP = np.arange(24).reshape(4, 6)  # 0 to 23, in steps of a grey level


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.uint8),
        RAMP.astype(np.uint8)[..., None],
        np.repeat(RAMP.astype(np.uint8)[..., None], 3, axis=2),
        np.dstack([np.repeat(RAMP.astype(np.uint8)[..., None], 3, axis=2), np.full((4, 6), 255, np.uint8)]),
        RAMP.astype(np.int64),
        RAMP.astype(np.float32),
        RAMP / 255,
        (RAMP / 255).astype(np.float32)[..., None],
        np.repeat(RAMP[..., None], 4, axis=2).astype(np.uint8) * [1, 1, 1, 0] + np.uint8([0, 0, 0, 255]),
    ],
    ids=["grey", "one channel", "rgb", "rgba", "int64", "whole floats", "shares", "one of shares", "int rgba"],
)
def test_arrays_of_every_kind_give_the_same_pixels(values):
    expected = np.repeat(RAMP.astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(only(open_source(values)).image, expected)
    channels_first = values if values.ndim == 3 else values[..., None]
    np.testing.assert_array_equal(only(open_source(torch.from_numpy(channels_first).movedim(-1, 0))).image, expected)


def test_booleans_are_black_and_white():
    values = np.array([[True, False]])
    assert only(open_source(values)).image.tolist() == [[[255] * 3, [0] * 3]]
    assert only(open_source(torch.from_numpy(values)[None])).image.tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("scale", [1, 16, 257])
def test_sixteen_bits_are_the_same_through_every_door(tmp_path, scale):
    values = np.array([[0, 40, 220, 255]], np.uint16) * np.uint16(scale)
    Image.fromarray(values).save(tmp_path / "a.png")
    doors = [
        tmp_path / "a.png",
        values,
        Image.open(tmp_path / "a.png"),
        torch.from_numpy(values.astype(np.int32))[None],
    ]
    for frame in open_source(doors):
        assert frame.image[0, :, 0].tolist() == [0, 40, 220, 255]
    told = f"values up to {255 * scale} in 16 bits: white is taken as {256 * scale - 1 if scale < 257 else 65535}"
    assert [any(note.startswith(told) for note in frame.notes) for frame in open_source(doors[:3])] == [scale < 257] * 3


def test_opacity_is_the_same_through_every_door(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    doors = [tmp_path / "a.png", values, Image.fromarray(values), torch.from_numpy(values).movedim(-1, 0)]
    first, *others = (frame.image for frame in open_source(doors))
    alpha = values[..., 3:] / 255.0
    assert np.abs(first - (values[..., :3] * alpha + 255 * (1 - alpha))).max() < 1.01
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("count", [3, 4])
def test_arrays_of_opencv_are_turned(count):
    values = np.zeros((1, 1, count), np.uint8)
    values[..., 0] = 200  # blue, there
    values[..., 3:] = 255
    assert only(open_source(values, channels="bgr")).image.tolist() == [[[0, 0, 200]]]
    assert only(open_source(values)).image.tolist() == [[[200, 0, 0]]]
    assert only(open_source(torch.from_numpy(values).movedim(-1, 0), channels="bgr")).image.tolist() == [[[0, 0, 200]]]
    assert only(open_source(Image.fromarray(values), channels="bgr")).image.tolist() == [[[200, 0, 0]]]


def test_another_order_of_channels_is_refused():
    with pytest.raises(DataError, match="channels is rgb or bgr, not 'gbr'"):
        open_source(np.zeros((1, 1, 3), np.uint8), channels="gbr")


def test_what_is_no_image_in_a_folder_is_counted_and_a_picture_of_a_phone_told(tmp_path):
    write_image(tmp_path / "a.JPE")
    for name in ("notes.txt", "b.txt", "nothing", ".hidden", "c.heic"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" if name == "c.heic" else b"x")
    source = open_source(tmp_path)
    assert source.passed_over == {".txt": 2, "": 1}
    good, bad = source
    assert (good.error, Path(bad.name).name) == (None, "c.heic")
    assert "pip install pillow-heif" in (bad.error or "pip install pillow-heif")
    (tmp_path / "a.JPE").unlink()
    (tmp_path / "c.heic").unlink()
    with pytest.raises(DataError, match=r"no images or videos in .*: 2 \.txt, 1 without suffix"):
        open_source(tmp_path)


class FakeCapture:
    """Three grey frames, and how often a capture was released."""

    released: ClassVar[list[str]] = []

    def __init__(self, place, *_):
        self.place, self.left = place, 3

    def isOpened(self):  # noqa: N802
        return "dead" not in str(self.place)

    def get(self, _):
        return 10.0

    def grab(self):
        self.left -= 1
        return self.left >= 0

    def retrieve(self):
        return True, np.zeros((2, 2, 3), np.uint8)

    def release(self):
        self.released.append(self.place)


def test_a_network_camera_is_a_stream_and_keeps_its_password(monkeypatch):
    monkeypatch.setattr(sources.cv2, "VideoCapture", FakeCapture)
    url = "rtsp://admin:secret@10.0.0.7:554/ch1"
    for source in (open_source(url), open_source([url])):
        assert (source.is_stream, source.num_frames) == (True, None)
        assert [frame.name for frame in source] == [f"rtsp://10.0.0.7:554/ch1#{i}" for i in range(3)]
    assert open_source("https://host/live.m3u8").is_stream
    with pytest.raises(DataError, match="no stream at rtsp://dead/; check the address") as raised:
        open_source("rtsp://admin:secret@dead/")
    assert "secret" not in str(raised.value)


def test_a_password_of_an_address_is_neither_in_the_name_of_its_image_nor_in_what_failed():
    (frame,) = open_source(["http://admin:secret@127.0.0.1:9/a.png"])
    assert frame.name == "http://127.0.0.1:9/a.png"
    assert frame.error is not None
    assert frame.error.startswith("cannot download http://127.0.0.1:9/a.png: ")
    assert "secret" not in frame.error


def test_a_stream_is_released_when_its_reader_stops(monkeypatch):
    monkeypatch.setattr(sources.cv2, "VideoCapture", FakeCapture)
    source = open_source("rtsp://host/a")
    FakeCapture.released.clear()
    for _ in source:
        break
    assert FakeCapture.released == ["rtsp://host/a"]


def test_a_camera_has_no_negative_number():
    with pytest.raises(DataError, match="camera -1 is none: cameras are numbered from 0"):
        open_source(-1)
