"""Options of `pyrafuse evaluate-classifier` that are no numbers of anything."""

import pytest

from pyrafuse.cli.main import main


@pytest.mark.parametrize(
    ("option", "value"), [("--size", "0"), ("--size", "-9"), ("--num_classes", "0"), ("--resize", "0")]
)
def test_the_option_is_named(option, value, tmp_path, capsys):
    assert main(["evaluate-classifier", "resnet18", str(tmp_path), option, value]) == 2
    assert capsys.readouterr().err == f"pyrafuse: {option} must be 1 or more, got {value}\n"
