import sys
from pathlib import Path

import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.extras import describe_install, naming_extras, require


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise ImportError('libgomp.so.1: cannot open shared object file')", "libgomp.so.1: cannot open shared obj"),
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
    ],
)
def test_a_library_that_fails_as_it_is_imported_is_named(tmp_path, monkeypatch, text, told):
    (tmp_path / "optuna").mkdir()
    (tmp_path / "optuna" / "__init__.py").write_text("from . import _binding")
    (tmp_path / "optuna" / "_binding.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "optuna"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(PyrafuseError, match=f"optuna is installed and cannot be imported: {told}.*force-rein"):
        _import("optuna")


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(PyrafuseError, match=r'needs optuna, which is not installed: pip install "pyrafuse\[search\]"'):
        _import("optuna")


def test_a_library_is_required_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "ray.py").write_text("raise AssertionError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    require("ray")
    monkeypatch.setattr("pyrafuse.base.extras.find_spec", lambda name: None)
    with pytest.raises(PyrafuseError, match=r'needs ray, which is not installed: pip install "pyrafuse\[ray\]"'):
        require("ray")


@pytest.mark.parametrize("name", ["no_such_module", "pyrafuse.base.no_such_module"])
def test_other_errors_of_imports_stay_as_they_are(name):
    with pytest.raises(ModuleNotFoundError) as caught:
        _import(name)
    assert not isinstance(caught.value, PyrafuseError)


def _import(name):
    with naming_extras():
        __import__(name)


def test_the_environment_is_named_where_pip_is_that_of_another(monkeypatch):
    monkeypatch.setattr("pyrafuse.base.extras.which", lambda _: str(Path(sys.executable).with_name("pip")))
    assert describe_install("ray") == 'pip install "pyrafuse[ray]"'
    monkeypatch.setattr("pyrafuse.base.extras.which", lambda _: "/elsewhere/bin/pip")
    assert describe_install("ray") == f'pip install "pyrafuse[ray]", in the environment {sys.prefix}'
