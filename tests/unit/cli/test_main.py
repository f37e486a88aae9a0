import inspect
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

import pyrafuse
from pyrafuse.base.errors import DataError
from pyrafuse.cli.main import COMMANDS, Command, main


@pytest.fixture
def commands(monkeypatch):
    """Commands whose functions stand in this file."""
    for name in ("works", "finds_fault", "breaks", "is_stopped"):
        monkeypatch.setitem(COMMANDS, name.replace("_", "-"), Command(f"{__name__}:{name}", "For tests."))


def works(word: str, /, *, status: int = 0) -> int:
    """Print a word."""
    print(word)
    return status


def finds_fault() -> int:
    """Raise what a person can mend."""
    raise DataError("cat.jpg is empty; remove or replace it")


def breaks() -> int:
    """Raise what only we can mend."""
    raise ZeroDivisionError


def is_stopped() -> int:
    """Be interrupted."""
    raise KeyboardInterrupt


def test_help_names_every_command_within_a_second():
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "pyrafuse", "--help"], capture_output=True, text=True, check=False)
    assert time.perf_counter() - start < 1
    assert (done.returncode, done.stderr) == (0, "")
    for name, command in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert command.summary in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_is_the_first_line_of_the_function(name):
    function = COMMANDS[name].load()
    assert (inspect.getdoc(function) or "").splitlines()[0] == COMMANDS[name].summary
    assert inspect.signature(function, eval_str=True).return_annotation is int


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    assert main([*name.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: pyrafuse {name} ")
    assert err == ""


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pyrafuse {pyrafuse.__version__}\n"


def test_no_command_is_a_mistake_with_help(capsys):
    assert main([]) == 2
    assert "usage: pyrafuse COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["predct"], "pyrafuse: unknown command 'predct'; did you mean 'predict'?"),
        (["data", "chek"], "pyrafuse: unknown command 'data chek'; did you mean 'data check'?"),
        (["data"], "pyrafuse: 'pyrafuse data' needs one word more: data check"),
        (["--import"], "pyrafuse: --import needs the name of a module or a .py file"),
        (["works", "a", "--statu", "1"], "pyrafuse: unknown option --statu; did you mean --status?"),
        (["finds-fault"], "pyrafuse: cat.jpg is empty; remove or replace it\n"),
    ],
)
def test_a_mistake_gives_one_line_and_status_2(commands, capsys, argv, message):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_the_status_is_what_the_function_returns(commands, capsys):
    assert main(["works", "hello", "--status", "1"]) == 1
    assert capsys.readouterr().out == "hello\n"


def test_debug_shows_the_traceback(commands, capsys):
    assert main(["finds-fault", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "DataError: cat.jpg is empty" in err


def test_an_interrupt_is_130(commands, capsys):
    assert main(["is-stopped"]) == 130
    assert capsys.readouterr().err == "pyrafuse: interrupted\n"


def test_a_bug_of_ours_is_not_hidden(commands):
    with pytest.raises(ZeroDivisionError):
        main(["breaks"])


@pytest.mark.parametrize("reference", ["my_part_module", "my_part_module.py", "./my_part_module.py"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_code_outside_is_imported_first(commands, capsys, tmp_path, monkeypatch, reference, order):
    (tmp_path / "my_part_module.py").write_text("print('imported', __name__)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.delitem(sys.modules, "my_part_module", raising=False)
    given = ["--import", reference]
    assert main([*given, "works", "a"] if order == "before" else ["works", "a", *given]) == 0
    assert capsys.readouterr().out == "imported my_part_module\na\n"
    sys.modules.pop("my_part_module")


def test_code_that_is_not_there_is_named(commands, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["works", "a", "--import=no_such_module"]) == 2
    assert f"no module named 'no_such_module' in {tmp_path}" in capsys.readouterr().err
    assert main(["works", "a", "--import=no_such_file.py"]) == 2
    assert "no such file: no_such_file.py" in capsys.readouterr().err


def test_code_that_misses_another_module_shows_its_own_error(commands, tmp_path, monkeypatch):
    (tmp_path / "my_broken_module.py").write_text("import no_such_dependency\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        main(["works", "a", "--import", "my_broken_module"])


def test_a_reader_that_leaves_is_no_error():
    code = "import sys; from pyrafuse.cli.main import main; sys.exit(main(['--help']))"
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{code}" | true; exit ${{PIPESTATUS[0]}}'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 141}
    assert done.stderr == ""


def test_an_interrupt_after_the_command_does_not_undo_its_status(commands, monkeypatch, capsys):
    @contextmanager
    def late():
        yield []
        raise KeyboardInterrupt

    monkeypatch.setattr("pyrafuse.cli.main.as_interrupts", late)
    assert main(["works", "hello", "--status", "3"]) == 3
    assert capsys.readouterr() == ("hello\n", "")


def test_an_interrupt_before_the_command_is_one(monkeypatch, capsys):
    @contextmanager
    def early():
        raise KeyboardInterrupt
        yield []

    monkeypatch.setattr("pyrafuse.cli.main.as_interrupts", early)
    assert main(["--version"]) == 130
    assert capsys.readouterr() == ("", "pyrafuse: interrupted\n")
