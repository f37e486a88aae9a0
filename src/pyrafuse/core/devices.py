"""Where to compute, from what people type."""

import torch

from pyrafuse.base.errors import PyrafuseError


def choose_device(name: str | torch.device) -> torch.device:
    """The device called ``name``: ``auto``, ``cpu``, ``gpu``, ``cuda``, ``cuda:1`` or just ``1``.

    Raises:
        PyrafuseError: If there is no such device here; the message lists those that there are.
    """
    name = str(name)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    kind = accelerator.type if accelerator else "cpu"
    available = ["cpu", *(f"{kind}:{i}" for i in range(torch.accelerator.device_count() if accelerator else 0))]
    wanted = kind if name == "auto" or (name == "gpu" and accelerator) else name
    wanted = f"{kind}:{name}" if name.isdecimal() and accelerator else wanted
    if wanted in available or (accelerator and wanted == kind):
        return torch.device(wanted)
    raise PyrafuseError(f"no device {name!r} here; choose from auto, {', '.join(available)}")
