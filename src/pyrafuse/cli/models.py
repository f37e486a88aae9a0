"""`pyrafuse models`."""


def models() -> int:
    """List the models and parts that can be named."""
    from pyrafuse.models.factory import list_parts

    parts = list_parts()
    for kind in ("model", "backbone", "neck", "head"):
        print(f"{kind}s")
        for name in parts[kind]:
            print(f"  {name}")
        if kind == "backbone":
            print("  timm/NAME, for any model of timm that gives a feature pyramid")
    return 0
