"""Nothing that runs here tells anybody about it."""

import sys


def refuse_telemetry() -> None:
    """Keep OpenVINO and NNCF from reporting to their makers, which they do on import unless told otherwise.

    Without the package that reports they use an empty one of their own. Call it before they are imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: an import of it fails
