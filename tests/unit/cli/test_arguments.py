from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.cli.arguments import call


@dataclass(frozen=True)
class Optimizer:
    """How weights move.

    Attributes:
        rate: Step at 64 images.
        kind: Which one.
    """

    rate: float = 0.1
    kind: Literal["sgd", "adam"] = "sgd"


@dataclass(frozen=True)
class Settings:
    """A whole run.

    Attributes:
        data: The data set.
        epochs: How often it is seen.
        size: Height and width in pixels.
        optimizer: How weights move.
        devices: How many.
        extra: What else there is.
    """

    data: Path
    epochs: int = 3
    size: tuple[int, int] = (416, 416)
    optimizer: Optimizer = field(default_factory=Optimizer)
    devices: int | Literal["auto"] = "auto"
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be positive, got {self.epochs}")


@pytest.fixture
def predict() -> tuple[Callable[..., int], list[tuple]]:
    calls = []

    def function(
        model: str,
        source: Path,
        /,
        *,
        score: float = 0.3,
        save_images: bool = False,
        formats: tuple[Literal["image", "json"], ...] = ("image",),
        device: str | None = None,
    ) -> int:
        """Find objects.

        More words.

        Args:
            model: A checkpoint.
            source: Where to look.
            score: Least score, 0..1.
            save_images: Whether to draw.
            formats: What to write.
            device: Where to compute.
        """
        calls.append((model, source, score, save_images, formats, device))
        return 7

    return function, calls


DEFAULTS = ("m", Path("s"), 0.3, False, ("image",), None)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], DEFAULTS),
        (["--score", "0.5"], ("m", Path("s"), 0.5, False, ("image",), None)),
        (["--save-images"], ("m", Path("s"), 0.3, True, ("image",), None)),
        (["--save_images", "true"], ("m", Path("s"), 0.3, True, ("image",), None)),
        (["--save-images", "--no-save-images"], DEFAULTS),
        (["--formats", "json,image"], ("m", Path("s"), 0.3, False, ("json", "image"), None)),
        (["--formats=json"], ("m", Path("s"), 0.3, False, ("json",), None)),
        (["--formats", "[json]"], ("m", Path("s"), 0.3, False, ("json",), None)),
        (["--device", "cpu"], ("m", Path("s"), 0.3, False, ("image",), "cpu")),
    ],
)
def test_words_become_the_values_of_a_function(predict, argv, expected):
    function, calls = predict
    assert call(function, ["m", "s", *argv], prog="pyrafuse predict") == 7
    assert calls == [expected]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["m"], "source is required (see pyrafuse predict --help)"),
        (["m", "s", "t"], "unexpected 't' (see pyrafuse predict --help)"),
        (["m", "s", "score=3"], "unexpected 'score=3'; did you mean --score 3? (see pyrafuse predict --help)"),
        (["m", "s", "--scor", "1"], "unknown option --scor; did you mean --score? (see pyrafuse predict --help)"),
        (["m", "s", "--score", "high"], "--score: expected float, got 'high' (see pyrafuse predict --help)"),
        (["m", "s", "--score"], "--score needs a value (see pyrafuse predict --help)"),
        (
            ["m", "s", "--formats", "jsn"],
            "--formats: 'jsn' is not one of image, json; did you mean 'json'? (see pyrafuse predict --help)",
        ),
        (
            ["m", "s", "--config", "no.yaml"],
            "no such file: " + str(Path("no.yaml").absolute()) + " (see pyrafuse predict --help)",
        ),
    ],
)
def test_a_word_that_does_not_fit_is_named_with_its_remedy(predict, argv, message):
    function, calls = predict
    with pytest.raises(PyrafuseError) as raised:
        call(function, argv, prog="pyrafuse predict")
    assert str(raised.value) == message
    assert calls == []


def test_words_without_end():
    seen = []

    def function(model: str, /, *sources: Path, score: float = 0.3) -> int:
        """Find objects.

        Args:
            model: A checkpoint.
            sources: Where to look.
            score: Least score.
        """
        seen.append((model, sources, score))
        return 0

    assert call(function, ["m", "a", "b", "--score", "0.5"], prog="t") == 0
    assert call(function, ["--score", "0.5", "m", "a"], prog="t") == 0
    assert seen == [("m", (Path("a"), Path("b")), 0.5), ("m", (Path("a"),), 0.5)]
    with pytest.raises(PyrafuseError, match="sources is required"):
        call(function, ["m"], prog="t")


def test_help_comes_from_the_docstring(predict, capsys):
    function, calls = predict
    assert call(function, ["--help"], prog="pyrafuse predict") == 0
    text = capsys.readouterr().out
    assert "Find objects." in text
    assert "Least score, 0..1." in text
    assert calls == []


def train(seen: list[Settings]) -> Callable[[Settings], int]:
    def function(settings: Settings) -> int:
        """Train."""
        seen.append(settings)
        return 0

    return function


def test_a_dataclass_gives_its_fields_as_options():
    seen = []
    assert call(train(seen), ["--data", "d", "--size", "320,320", "--optimizer.kind", "adam"], prog="t") == 0
    assert seen == [Settings(Path("d"), 3, (320, 320), Optimizer(0.1, "adam"))]


def test_keys_of_a_dict_are_options():
    seen = []
    assert call(train(seen), ["--data", "d", "--extra.a", "1", "--extra.b", "{c: 2.5}"], prog="t") == 0
    assert seen[0].extra == {"a": 1, "b": {"c": 2.5}}
    argv = ["--data", "d", "--extra", "{a: {x: 1, y: 1e-3}}", "--extra.a.x.deep=[2]", "--extra.z", "null"]
    assert call(train(seen), argv, prog="t") == 0
    assert seen[1].extra == {"a": {"x": {"deep": [2]}, "y": 0.001}, "z": None}


def test_a_file_gives_values_and_options_override_them(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("data: d\nepochs: 9\noptimizer:\n  rate: 0.5\n")
    seen = []
    assert call(train(seen), ["--config", str(config), "--optimizer.kind", "adam", "--epochs=8"], prog="t") == 0
    assert seen == [Settings(Path("d"), 8, (416, 416), Optimizer(0.5, "adam"))]


def test_what_is_printed_can_be_read_again(tmp_path, capsys):
    seen = []
    argv = ["--data", "d", "--epochs", "4", "--optimizer.rate", "0.2"]
    assert call(train(seen), [*argv, "--print_config"], prog="t") == 0
    assert seen == []
    (tmp_path / "run.yaml").write_text(capsys.readouterr().out)
    assert call(train(seen), ["--config", str(tmp_path / "run.yaml")], prog="t") == 0
    assert call(train(seen), argv, prog="t") == 0
    assert seen[0] == seen[1] == Settings(Path("d"), 4, (416, 416), Optimizer(0.2, "sgd"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data", "d", "--epochs", "0"], "epochs must be positive, got 0 (see t --help)"),
        (["--data", "d", "--optimizer.rat", "1"], "unknown option --optimizer.rat; did you mean --optimizer.rate?"),
        (["--data", "d", "--rate", "1"], "unknown option --rate; did you mean --optimizer.rate?"),
        (
            ["--optimizer", "fast"],
            "--optimizer: fast is no YAML file; the options are --optimizer.rate, --optimizer.kind",
        ),
        (["--data", "d", "--devices", "autp"], "--devices: 'autp' is none of int, 'auto' (see t --help)"),
        (["data=d"], "did you mean --data d?"),
        ([], "--data is required (see t --help)"),
        (["--data", "d", "--optimizer.kind", "adm"], "--optimizer.kind: 'adm' is not one of sgd, adam; did you mean"),
    ],
)
def test_a_dataclass_says_what_does_not_fit(argv, message):
    with pytest.raises(PyrafuseError) as raised:
        call(train([]), argv, prog="t")
    assert message in str(raised.value)


def test_an_unknown_key_in_a_file_is_named(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("data: d\nepoch: 9\n")
    with pytest.raises(PyrafuseError, match=r"epoch"):
        call(train([]), ["--config", str(config)], prog="t")


def test_an_error_of_the_function_passes_unchanged(predict):
    def function() -> int:
        """Fail."""
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        call(function, [], prog="t")


def test_o_is_short_for_output_everywhere():
    seen = []

    def draw(*, output: Path) -> int:
        """Draw.

        Args:
            output: Where to.
        """
        seen.append(output)
        return 0

    assert call(draw, ["-o", "here.svg"], prog="draw") == 0
    assert seen == [Path("here.svg")]
