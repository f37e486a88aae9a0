"""Where to compute, from what people type."""

from typing import TYPE_CHECKING

from pyrafuse.core.errors import PyrafuseError

if TYPE_CHECKING:
    import torch


def choose_device(name: str) -> "torch.device":
    """The device called ``name``: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or just ``1``.

    Raises:
        PyrafuseError: If there is no such device here; the message lists those that there are.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    kind = accelerator.type if accelerator else "cpu"
    available = ["cpu", *(f"{kind}:{i}" for i in range(torch.accelerator.device_count() if accelerator else 0))]
    wanted = kind if name == "auto" else f"{kind}:{name}" if name.isdecimal() and accelerator else name
    if wanted in available or (accelerator and wanted == kind):
        return torch.device(wanted)
    raise PyrafuseError(f"no device {name!r} here; choose from auto, {', '.join(available)}")
