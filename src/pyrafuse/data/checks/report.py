"""The report on a data set: what it holds, and its problems by severity; as text and as plain values."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pyrafuse.base.errors import DataError
from pyrafuse.base.printable import counted, printable
from pyrafuse.data.checks.sizes import ClassSizes, format_sizes
from pyrafuse.data.reading.problems import Problem

SEVERITIES = ("error", "warning", "hint", "note")


@dataclass(frozen=True)
class Report:
    """What a data set holds and what is wrong with it.

    Attributes:
        finding: What was found, in one sentence.
        problems: Errors first, then warnings, hints and notes.
        num_images: Number of images for training and validation together.
        num_empty: How many of these hold no object.
        sizes: How large the objects are, class by class.
    """

    finding: str
    problems: tuple[Problem, ...]
    num_images: int
    num_empty: int
    sizes: tuple[ClassSizes, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What has to be mended."""
        return self.of_severity("error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What was dealt with."""
        return self.of_severity("warning")

    @property
    def hints(self) -> tuple[Problem, ...]:
        """What is worth a look."""
        return self.of_severity("hint")

    @property
    def notes(self) -> tuple[Problem, ...]:
        """How sound data were taken."""
        return self.of_severity("note")

    @property
    def certain(self) -> tuple[Problem, ...]:
        """All but the hints."""
        return tuple(problem for problem in self.problems if problem.severity != "hint")

    @property
    def has_errors(self) -> bool:
        """Whether anything has to be mended."""
        return bool(self.errors)

    def of_severity(self, severity: str) -> tuple[Problem, ...]:
        """The problems of one severity."""
        return tuple(problem for problem in self.problems if problem.severity == severity)

    def text(self, *, num_examples: int = 5) -> str:
        """The report for people: every kind of problem with its count, its remedy and its first examples."""
        return f"{self.finding}\n{self.details(self.problems, num_examples=num_examples)}"

    def details(self, problems: Sequence[Problem], *, num_examples: int = 5) -> str:
        """The same without the first line, with ``problems`` alone, for whoever has said what was found."""
        objects = self.sizes[-1].num_objects
        lines = [
            f"{counted(objects, 'object')} in {counted(self.num_images, 'image')}; "
            f"{counted(self.num_empty, 'image')} {'holds' if self.num_empty == 1 else 'hold'} none",
            "",
            format_sizes(self.sizes),
            "",
            *format_problems(problems, num_examples),
            self.counts(),
        ]
        return "\n".join(lines)

    def counts(self) -> str:
        """``1 error, 0 warnings, 2 hints``; hints and notes only where there are any."""
        counts = {severity: len(self.of_severity(severity)) for severity in SEVERITIES}
        told = [severity for severity in SEVERITIES if counts[severity] or severity in {"error", "warning"}]
        return ", ".join(counted(counts[severity], severity) for severity in told)

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "finding": self.finding,
            "num_images": self.num_images,
            "num_empty": self.num_empty,
            "sizes": [asdict(row) for row in self.sizes],
            **{f"{each}s": [problem.to_dict() for problem in self.of_severity(each)] for each in SEVERITIES},
        }

    def raise_on_errors(self, *, strict: bool = False) -> None:
        """Stop at faulty data.

        Raises:
            DataError: If there is an error, or, when ``strict``, a warning; the message is grouped like `text`.
        """
        problems = self.errors + self.warnings if strict else self.errors
        if problems:
            raise DataError("\n".join(["the data set has faults:", *format_problems(problems, 3)]).rstrip())


@dataclass(frozen=True)
class Advice:
    """One piece of advice.

    Attributes:
        topic: What it is on.
        text: What to do, or to leave, and why, in figures.
        settings: Settings of a recipe that follow, by their names; none where all is well.
    """

    topic: str
    text: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def options(self) -> str:
        """The settings as they are typed."""
        return " ".join(f"--{name} {value}" for name, value in self.settings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"topic": self.topic, "text": self.text, "settings": dict(self.settings)}


def group_problems(problems: Sequence[Problem]) -> dict[tuple[str, str, str], list[Problem]]:
    """The problems by severity, kind and remedy."""
    groups: dict[tuple[str, str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[problem.severity, problem.kind, problem.remedy].append(problem)
    return groups


def format_problems(problems: Sequence[Problem], num_examples: int) -> list[str]:
    """Lines for people: every kind of problem with its count, its remedy and its first examples."""
    lines = []
    for (severity, kind, remedy), members in group_problems(problems).items():
        lines.append(f"{severity}: {kind} ({len(members)}): {remedy}")
        lines += [printable(f"  {problem.place}: {problem.message}") for problem in members[:num_examples]]
        if len(members) > num_examples:
            lines.append(f"  ... and {len(members) - num_examples} more")
        lines.append("")
    return lines


def format_advice(advice: Sequence[Advice]) -> list[str]:
    """Lines for people: what to train with, and the options that say so."""
    if not advice:
        return []
    width = max(len(each.topic) for each in advice)
    lines = [f"{each.topic:<{width}}  {each.text}{f' ({each.options})' if each.options else ''}" for each in advice]
    return ["", "advice for `pyrafuse train DATA` (--advice applies it):", *map(printable, lines)]
