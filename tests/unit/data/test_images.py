"""Reading image files: every common kind of file becomes upright eight-bit RGB, or an error that names it."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pyrafuse.base.errors import DataError
from pyrafuse.base.images import pixels
from pyrafuse.base.images.pixels import from_pillow
from pyrafuse.base.images.reading import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    REMEDIES,
    read_header,
    read_headers,
    read_image,
    read_picture,
    read_size,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def gradient(height: int = 20, width: int = 30) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 8, columns * 6, rows + columns], -1).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "tif"])
def test_lossless_formats_are_exact(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(gradient()).save(path, **({"lossless": True} if suffix == "webp" else {}))
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert np.array_equal(pixels, gradient())
    assert read_size(path) == (20, 30)


def test_jpeg_equals_pillow(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(gradient()).save(path, quality=90)
    assert np.array_equal(read_image(path), np.asarray(Image.open(path)))


def test_wrong_suffix_is_no_matter(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(read_image(tmp_path / "a.jpg"), gradient())


# What EXIF 1..8 store of the upright picture [[a, b, c], [d, e, f]].
STORED = {
    1: [[0, 1, 2], [3, 4, 5]],
    2: [[2, 1, 0], [5, 4, 3]],
    3: [[5, 4, 3], [2, 1, 0]],
    4: [[3, 4, 5], [0, 1, 2]],
    5: [[0, 3], [1, 4], [2, 5]],
    6: [[2, 5], [1, 4], [0, 3]],
    7: [[5, 2], [4, 1], [3, 0]],
    8: [[3, 0], [4, 1], [5, 2]],
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    colors = np.array([RED, GREEN, BLUE, WHITE, (0, 0, 0), (9, 99, 199)], np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    picture = Image.fromarray(colors[np.array(STORED[orientation])])
    picture.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(read_image(path), colors.reshape(2, 3, 3))
    assert read_size(path) == (2, 3)


def test_exif_orientation_of_jpeg(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", exif=exif)
    header = read_header(tmp_path / "a.jpg")
    assert (header.width, header.height, header.orientation) == (30, 20, 6)
    assert read_size(tmp_path / "a.jpg") == (30, 20)
    assert read_image(tmp_path / "a.jpg").shape == (30, 20, 3)


def test_damaged_exif_counts_as_upright(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.png", exif=b"Exif\0\0nonsense of no meaning")
    assert np.array_equal(read_image(tmp_path / "a.png"), gradient())


def test_grey_and_one_bit(tmp_path):
    Image.fromarray(np.array([[0, 128, 255]], np.uint8)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").tolist() == [[[0] * 3, [128] * 3, [255] * 3]]
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bit.png")
    assert read_image(tmp_path / "bit.png").tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(tmp_path / f"a.{suffix}")
    assert read_image(tmp_path / f"a.{suffix}")[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_fewer_bits_in_sixteen_are_seen_by_the_brightest(tmp_path, bits, suffix):
    white = 2**bits - 1
    Image.fromarray(np.array([[0, white // 2, white]], np.uint16)).save(tmp_path / f"a.{suffix}")
    picture = read_picture(tmp_path / f"a.{suffix}")
    assert picture.pixels[0].tolist() == [[0] * 3, [127] * 3, [255] * 3]
    assert picture.notes == (f"values up to {white} in 16 bits: white is taken as {white} ({bits} bits)",)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_twelve_bit_colours_keep_their_bits(tmp_path, suffix):
    colors = np.array([[[4095, 16, 0], [0, 2048, 160]]], np.uint16)  # red, green, blue
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), colors[..., ::-1])
    picture = read_picture(tmp_path / f"a.{suffix}")
    assert picture.pixels.tolist() == [[[255, 1, 0], [0, 128, 10]]]
    assert picture.notes == ("values up to 4095 in 16 bits: white is taken as 4095 (12 bits)",)
    cv2.imwrite(str(tmp_path / f"b.{suffix}"), colors[..., ::-1] * 16)
    assert read_picture(tmp_path / f"b.{suffix}").notes == ()
    assert read_image(tmp_path / f"b.{suffix}").tolist() == [[[255, 1, 0], [0, 128, 10]]]


def test_floats_have_a_white_up_to_one_alone(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "a.tif")
    assert read_picture(tmp_path / "a.tif").pixels[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]
    assert read_picture(tmp_path / "a.tif").notes == ("floating-point values: white is taken as 1",)
    cv2.imwrite(str(tmp_path / "rgb.tif"), np.array([[[0.0, 0.2, 1.0]]], np.float32))  # of which Pillow knows nothing
    assert read_image(tmp_path / "rgb.tif").tolist() == [[[255, 51, 0]]]
    assert read_size(tmp_path / "rgb.tif") == (1, 1)


def test_values_without_a_white_are_refused(tmp_path):
    Image.fromarray(np.array([[0.0, 271.3]], np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "int.tif")
    Image.fromarray(np.array([[-3, 9]], np.int32)).save(tmp_path / "signed.tif")
    with pytest.raises(
        DataError, match=r"float\.tif holds floating-point pixels from 0 to 271\.3: their white is unknown"
    ):
        read_image(tmp_path / "float.tif")
    with pytest.raises(DataError, match=r"int\.tif holds pixels from 0 to 70000: only 0 to 65535"):
        read_image(tmp_path / "int.tif")
    with pytest.raises(DataError, match=r"signed\.tif holds pixels from -3 to 9"):
        read_image(tmp_path / "signed.tif")


def test_a_tiff_of_large_offsets(tmp_path):
    for mode in ("RGB", "L"):
        Image.fromarray(gradient()).convert(mode).save(tmp_path / "big.tif", big_tiff=True)
        assert (tmp_path / "big.tif").read_bytes()[:4] == b"II+\0"
        expected = np.array(Image.fromarray(gradient()).convert(mode).convert("RGB"))
        assert np.array_equal(read_image(tmp_path / "big.tif"), expected)
        assert read_size(tmp_path / "big.tif") == (20, 30)


@pytest.mark.parametrize(("meaning", "expected"), [(None, (255, 0, 0)), (0, (255, 0, 0)), (2, (255, 204, 204))])
def test_a_fourth_band_is_opacity_only_where_the_file_says_so(tmp_path, meaning, expected):
    Image.new("RGBA", (2, 1), (255, 0, 0, 51)).save(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    at = content.index(struct.pack("<HHIH", 338, 3, 1, 2))  # the tag that says what the fourth band is
    content[at : at + 2] = struct.pack("<H", 65000 if meaning is None else 338)
    content[at + 8 : at + 10] = struct.pack("<H", meaning or 0)
    (tmp_path / "a.tif").write_bytes(content)
    picture = read_picture(tmp_path / "a.tif")
    assert picture.pixels.tolist() == [[list(expected)] * 2]
    told = ("4 bands: the first three are taken as red, green and blue",)
    assert picture.notes == (() if meaning == 2 else told)


def test_of_many_pages_the_first_is_read_and_said(tmp_path):
    pages = [Image.new("RGB", (4, 3), color) for color in (RED, BLUE)]
    for suffix in ("tif", "webp", "gif", "png"):
        kept = {"lossless": True} if suffix == "webp" else {}
        pages[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pages[1:], **kept)
        picture = read_picture(tmp_path / f"a.{suffix}")
        assert picture.pixels[0, 0].tolist() == list(RED)
        assert picture.notes == ("2 pages or frames: the first is read",)


@pytest.mark.parametrize(
    "suffix", ["jfif", "jpe", "JPG", "avif", "ppm", "jp2", "tga", "dib", "pgm", "qoi", "pcx", "mpo"]
)
def test_whatever_pillow_reads_is_an_image(tmp_path, suffix):
    assert f".{suffix.lower()}" in IMAGE_SUFFIXES
    path = tmp_path / f"a.{suffix}"
    picture = Image.new("L" if suffix == "pgm" else "RGB", (16, 16), "red")
    picture.save(path, **({"format": "MPO"} if suffix == "mpo" else {}))
    grey = [76] * 3 if suffix == "pgm" else RED
    assert np.abs(read_image(path).astype(int) - grey).max() <= 3
    assert read_size(path) == (16, 16)


def test_what_runs_a_program_is_no_image(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    assert not IMAGE_SUFFIXES & {".eps", ".ps", ".wmf", ".pdf", ".svg", ".h5", ".mpeg"}
    with pytest.raises(DataError, match=r"a\.eps is a EPS file, which cannot be read as it is: save it as PNG"):
        read_image(tmp_path / "a.eps")


@pytest.mark.parametrize("name", ["phone.heic", "renamed.jpg"])
def test_a_picture_of_a_phone_names_the_plugin(tmp_path, name):
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    if ".heic" in REMEDIES:
        with pytest.raises(
            DataError, match=rf"{name} is a HEIC file, which cannot be read as it is: pip install pillow-heif"
        ):
            read_image(tmp_path / name)


def test_transparency_shows_white(tmp_path):
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [255, 0, 0, 51]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert read_image(tmp_path / "rgba.png").tolist() == [[[255, 0, 0], [255, 255, 255], [255, 204, 204]]]
    Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8), mode="LA").save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png").tolist() == [[[10, 10, 10], [255, 255, 255]]]


def test_transparency_is_laid_over_white_strip_by_strip(monkeypatch):
    values = np.random.default_rng(0).integers(0, 256, (11, 7, 4), dtype=np.uint8)
    whole = from_pillow(Image.fromarray(values), name="a").pixels
    palette = Image.fromarray(values[..., 0], "P")
    palette.putpalette(np.random.default_rng(1).bytes(768))
    palette.info["transparency"] = bytes(range(256))
    of_palette = from_pillow(palette, name="a").pixels
    monkeypatch.setattr(pixels, "STRIP_PIXELS", 20)  # two rows
    np.testing.assert_array_equal(from_pillow(Image.fromarray(values), name="a").pixels, whole)
    np.testing.assert_array_equal(from_pillow(palette, name="a").pixels, of_palette)
    opacity = values[..., 3:].astype(float) / 255
    assert np.abs(whole - (values[..., :3] * opacity + 255 * (1 - opacity))).max() <= 1


def test_palette_with_and_without_transparency(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, *BLUE])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "solid.png")
    picture.save(tmp_path / "clear.png", transparency=b"\xff\x00")
    assert read_image(tmp_path / "solid.png").tolist() == [[list(RED), list(BLUE)]]
    assert read_image(tmp_path / "clear.png").tolist() == [[list(RED), list(WHITE)]]


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - RED).max() <= 3


def test_missing_empty_and_foreign_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no such image: .*gone\.jpg"):
        read_image(tmp_path / "gone.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(DataError, match=r"empty\.jpg is empty"):
        read_image(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("no picture at all")
    with pytest.raises(DataError, match=r"text\.jpg is no image"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_file_cut_off_is_refused(tmp_path, suffix, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match=rf"cut\.{suffix} is damaged"):
        read_image(path)


def huge_png(path: Path, width: int, height: int) -> None:
    """A PNG header that promises much, and no pixels."""
    chunk = b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    data = b"IDAT" + zlib.compress(b"")
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(len(c[4:]).to_bytes(4) + c + zlib.crc32(c).to_bytes(4) for c in (chunk, data, b"IEND"))
    )


def test_huge_images_are_refused_before_decoding(tmp_path):
    huge_png(tmp_path / "huge.png", 20_000, 20_000)
    with pytest.raises(DataError, match=r"huge\.png has 20000 x 20000 pixels.*178,956,970"):
        read_image(tmp_path / "huge.png")


def test_large_images_below_the_limit_neither_warn_nor_fail(tmp_path):
    huge_png(tmp_path / "large.png", 17_000, 10_000)  # Pillow alone warns from 89 million pixels on
    assert MAX_PIXELS > 17_000 * 10_000
    assert read_size(tmp_path / "large.png") == (10_000, 17_000)


def test_many_headers_at_once(tmp_path):
    for i in range(5):
        Image.new("RGB", (10 + i, 20)).save(tmp_path / f"{i}.png")
    found = read_headers([tmp_path / f"{i}.png" for i in range(6)])
    assert [h.upright_size for h in found if not isinstance(h, DataError)] == [(20, 10 + i) for i in range(5)]
    assert isinstance(found[5], DataError)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n",
            "a pointer of Git LFS: run `git lfs pull`",
        ),
        ("<!DOCTYPE html><html></html>", "a web page: download the image anew"),
    ],
)
def test_what_stands_in_the_place_of_an_image_is_named(tmp_path, text, told):
    (tmp_path / "a.jpg").write_text(text)
    with pytest.raises(DataError, match=rf"a\.jpg is no image but {told}"):
        read_image(tmp_path / "a.jpg")
