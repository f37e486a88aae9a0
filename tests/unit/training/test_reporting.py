"""The page of a run: when it is written, and with what is there."""

from types import SimpleNamespace

import pytest
import yaml

from pyrafuse.base.errors import DataError
from pyrafuse.training import reporting
from pyrafuse.training.reporting import PageWriter, add_row, read_history, write_page
from pyrafuse.training.settings import Recipe, to_plain


@pytest.fixture
def folder(tmp_path):
    """A run of two epochs that was not evaluated."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(to_plain(Recipe())))
    (tmp_path / "metrics.csv").write_text("epoch,train/loss,val/ap\n1,3.0,\n2,2.0,\n")
    return tmp_path


def test_a_run_without_an_evaluation_shows_its_losses(folder):
    assert read_history(folder)["train/loss"] == [3.0, 2.0]
    write_page(folder, None)
    page = (folder / "report.html").read_text()
    assert "2 of 24 epochs are trained so far" in page
    assert "There was no evaluation yet, so there is no average precision." in page
    assert "Curves of 2 epochs" in page
    assert "<dt>best epoch</dt><dd>-</dd>" in page
    assert "What to do next" not in page


def test_a_run_without_an_epoch_has_no_page(tmp_path):
    assert read_history(tmp_path) == {}
    write_page(tmp_path, None)
    assert not list(tmp_path.iterdir())


def test_a_page_is_written_anew_when_it_is_old(folder, monkeypatch):
    now, written = [0.0], []
    monkeypatch.setattr(reporting, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(reporting, "write_page", lambda folder, evaluation: written.append(now[0]))
    writer = PageWriter(folder, every_s=300)
    for second in (100, 299, 300, 500, 650):
        now[0] = second
        writer.write_if_old(None)
    assert written == [300, 650]


def test_what_goes_wrong_with_the_page_hides_no_error(folder, monkeypatch):
    tried = []
    monkeypatch.setattr(reporting, "write_page", lambda *given: tried.append(given) or 1 / 0)
    PageWriter(folder).write_stopped(None)
    assert tried == [(folder, None)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"epoch,loss\n1,2.0\n2", "row 2 has not as many values as there are columns"),
        (b"epoch,loss\n1,2.0,3.0\n", "row 1 has not as many values as there are columns"),
        (b"loss\n1\n", "invalid literal for int"),
        (b"epoch,loss\n-1,2\n", "row 1 is of epoch -1"),
        (b"epoch,loss\n" + b"9" * 5000 + b",2\n", "for integer string conversion"),
        (b"epoch,loss\n1,\x1b[2Jx\n", r"could not convert string to float: '\x1b[2Jx'"),
        (b"epoch,loss\n1,\xff\n", "can't decode byte 0xff"),
        (b'epoch,loss\n1,"' + b"x" * 200_000, "field larger than field limit"),
        (b'epoch,loss\n1,"2\n', "unexpected end of data"),
    ],
)
def test_a_damaged_history_is_one_sentence(tmp_path, content, told):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_history(tmp_path)
    assert str(caught.value).startswith(f"{path} is damaged (")
    assert str(caught.value).endswith("or remove the file; the checkpoints do not need it")
    assert told in str(caught.value)
    assert str(caught.value).isprintable()
    if b"\x1b" not in content:  # what no number is, is not read then
        with pytest.raises(DataError, match="is damaged"):
            add_row(path, 3, {"loss": 1.0})
        assert path.read_bytes() == content
