"""Where to compute, from what people type, and what that is in words."""

import platform

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


def describe_device(device: torch.device) -> str:
    """What the device is, in words, with the version of PyTorch."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return (
        f"{platform.machine()} {device.type}, {threads} thread{'s' if threads > 1 else ''}, torch {torch.__version__}"
    )
