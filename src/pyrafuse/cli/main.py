"""The entry of the command line: which command, and what becomes of its errors.

argv -> command's function (imported only now) -> `pyrafuse.cli.arguments` -> exit status: 0 done, 1 done with failures,
2 a `PyrafuseError`, 130 interrupted, 143 terminated.
"""

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from pyrafuse import __version__
from pyrafuse.base.errors import PyrafuseError, unknown_name
from pyrafuse.base.extras import naming_extras
from pyrafuse.base.habits import find_command
from pyrafuse.base.interrupts import as_interrupts
from pyrafuse.base.memory import collect_rarely
from pyrafuse.base.printable import printable_lines
from pyrafuse.base.user_code import import_user_code

MOST_LETTERS = 2000
"""Length of the longest message: what people read is not longer, and names in files may be."""


@dataclass(frozen=True)
class Command:
    """One command: where its function lives, and the first line of that function's docstring.

    Attributes:
        function: ``module:function``. The function's signature is the command's schema (see `arguments.call`) and its
            result the exit status.
        summary: What `pyrafuse --help` says, which must not import the function.
    """

    function: str
    summary: str

    def load(self):  # noqa: ANN201  # a function of any signature
        """Import the function."""
        module, name = self.function.split(":")
        return getattr(importlib.import_module(module), name)


COMMANDS = {
    "demo": Command(
        "pyrafuse.cli.demo:demo",
        "Train, evaluate, predict and explain on generated images, and show all of it on one page.",
    ),
    "train": Command("pyrafuse.cli.train:train", "Train a detector by a recipe, on your images."),
    "evaluate": Command(
        "pyrafuse.cli.evaluate:evaluate",
        "Measure a detector: COCO's average precision, class by class and size by size, and why it fails.",
    ),
    "diff": Command(
        "pyrafuse.cli.diff:diff",
        "Tell what one detector finds and another does not, by class and size, with pictures side by side.",
    ),
    "evaluate-classifier": Command(
        "pyrafuse.cli.evaluate_classifier:evaluate_classifier",
        "Measure an image classifier: top-1 and top-5 accuracy on a folder of images, FOLDER/CLASS/image.jpg.",
    ),
    "predict": Command("pyrafuse.cli.predict:predict", "Find objects in images, folders, videos, cameras or URLs."),
    "serve": Command(
        "pyrafuse.cli.serve:serve",
        "Answer requests over HTTP: images in, detections as JSON out. Ctrl-C ends it.",
    ),
    "app": Command(
        "pyrafuse.cli.app:app", "Show detectors, data and trainings on a page in your browser. Ctrl-C ends it."
    ),
    "explain": Command(
        "pyrafuse.cli.explain:explain",
        "Show which level each detection came from, and what the neck fused for it.",
    ),
    "import": Command(
        "pyrafuse.cli.import_:import_checkpoint",
        "Turn another project's checkpoint into one of ours, which holds its classes and its preprocessing.",
    ),
    "export": Command(
        "pyrafuse.cli.export:export",
        "Write a detector as one file that runs elsewhere: ONNX and other formats, with suppression in the graph.",
    ),
    "compare": Command(
        "pyrafuse.cli.compare:compare",
        "Compare necks, or any variants of a recipe, fairly: the same data, seeds and number of steps for all.",
    ),
    "search": Command(
        "pyrafuse.cli.search:search",
        "Search the neck that fits your data and a latency, by short trainings on a frozen backbone.",
    ),
    "data check": Command(
        "pyrafuse.cli.data_check:check",
        "Read a data set whole, say what is wrong with it, what is worth a look, and what to train with.",
    ),
    "data convert": Command("pyrafuse.cli.data_convert:convert", "Write a data set in another format."),
    "data split": Command(
        "pyrafuse.cli.data_split:split",
        "Divide a data set into training, validation and test, and write it to a new folder.",
    ),
    "data merge": Command(
        "pyrafuse.cli.data_merge:merge", "Put data sets together, of any formats, and write them to a new folder."
    ),
    "data shard": Command(
        "pyrafuse.cli.data_shard:shard",
        "Write a data set as tar files with an index, for data of very many images or at an address.",
    ),
    "data show": Command(
        "pyrafuse.cli.data_show:show",
        "Write one HTML page of a data set: objects of each class, and pictures with their boxes.",
    ),
    "recipes": Command(
        "pyrafuse.cli.recipes:recipes", "List the recipes: what each trains, where it comes from, and its commands."
    ),
    "models": Command(
        "pyrafuse.cli.models:models",
        "List the models and parts that can be named: parameters, GFLOPs and paper of each.",
    ),
    "bench": Command(
        "pyrafuse.cli.bench_models:bench",
        "Time detectors from pixels to detections, in turns: as they are, optimised, compiled and exported.",
    ),
    "bench necks": Command(
        "pyrafuse.cli.bench:bench_necks",
        "Time each neck alone on the same pyramid, and tell its peak memory, GFLOPs and parameters; the fastest first.",
    ),
    "draw": Command("pyrafuse.cli.draw:draw", "Draw a neck as a graph, or write it down as YAML to change it."),
}

IMPORTS: ContextVar[tuple[str, ...]] = ContextVar("IMPORTS", default=())
"""What --import named, for processes that a command starts."""

HELP = """\
pyrafuse {version}: object detectors built on fused feature pyramids

usage: pyrafuse COMMAND ...            pyrafuse COMMAND --help tells what a command takes

commands:
{commands}

options, before or after the command:
  --import MODULE   import MODULE, or a .py file, first: the necks, models ... that it registers can then be named
  --debug           show the traceback of an error
  --version         print the version
"""


@dataclass(frozen=True)
class _Invocation:
    words: tuple[str, ...]
    imports: tuple[str, ...] = ()
    is_debug: bool = False
    is_version: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` names, or this process was started with, and return the exit status."""
    if argv is None:
        collect_rarely()
    words = list(sys.argv[1:] if argv is None else argv)
    status: int | None = None
    try:
        with as_interrupts() as received:
            status = _answer(words, received)
    except KeyboardInterrupt:  # before the command began, or after it ended
        if status is None:
            print("pyrafuse: interrupted", file=sys.stderr)
    return 128 + signal.SIGINT if status is None else status


def _answer(words: list[str], received: Sequence[int]) -> int:
    """The exit status of ``words``; ``received`` holds the number of a signal that has ended them."""
    is_debug = "--debug" in words
    try:
        return _run(_take_global_options(words))
    except PyrafuseError as error:
        if is_debug:
            traceback.print_exc()
        else:
            print(f"pyrafuse: {printable_lines(str(error), limit=MOST_LETTERS)}", file=sys.stderr)
        return 2
    except PermissionError as error:
        print(f"pyrafuse: {error.filename} may not be read or written; change its rights", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(
            f"pyrafuse: {'terminated' if received else 'interrupted'}{f'; {stop}' if str(stop) else ''}",
            file=sys.stderr,
        )
        return 128 + (received[0] if received else signal.SIGINT)
    except BrokenPipeError:
        # The reader, `head` say, has left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(invocation: _Invocation) -> int:
    if invocation.is_version:
        print(f"pyrafuse {__version__}")
        return 0
    name, arguments = _split_command(invocation.words)
    if name is None:
        print(_help(), file=sys.stdout if arguments else sys.stderr, end="")
        return 0 if arguments else 2
    for module in invocation.imports:
        import_user_code(module)
    IMPORTS.set(invocation.imports)
    with naming_extras():
        function = COMMANDS[name].load()
        from pyrafuse.cli.arguments import call  # yaml: not for --help

        return call(function, arguments, prog=f"pyrafuse {name}")


def _take_global_options(words: Sequence[str]) -> _Invocation:
    rest, imports = [], []
    is_debug = is_version = False
    remaining = iter(words)
    for word in remaining:
        if word == "--debug":
            is_debug = True
        elif word == "--version":
            is_version = True
        elif word == "--import" or word.startswith("--import="):
            module = word.removeprefix("--import").removeprefix("=") or next(remaining, "")
            if not module or module.startswith("-"):
                raise PyrafuseError("--import needs the name of a module or a .py file")
            imports.append(module)
        else:
            rest.append(word)
    return _Invocation(tuple(rest), tuple(imports), is_debug, is_version)


def _split_command(words: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """The command's name and what follows; no name where the general help is asked for, or nothing at all."""
    if not words or words[0] in {"-h", "--help"}:
        return None, tuple(words)
    for length in (2, 1):
        if (name := " ".join(words[:length])) in COMMANDS:
            return name, tuple(words[length:])
    group = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if group and (len(words) == 1 or words[1].startswith("-")):
        raise PyrafuseError(f"'pyrafuse {words[0]}' needs one word more: {', '.join(group)}")
    if (meant := find_command(words[0])) is not None:
        raise PyrafuseError(f"unknown command {words[0]!r}; did you mean {meant!r}? (see pyrafuse {meant} --help)")
    raise unknown_name("command", " ".join(words[:2]) if group else words[0], COMMANDS)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}   {command.summary}" for name, command in COMMANDS.items()]
    return HELP.format(version=__version__, commands="\n".join(lines))
