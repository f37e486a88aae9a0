"""Detectors leave: one file that runs elsewhere, checked against the detector before it gets its name."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """This folder, which is a function as well: ``pyrafuse.export(...)`` works before and after it is imported."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module("pyrafuse.cli.calling").export(*args, **options)


export = sys.modules[__name__]
export.__class__ = _Room
