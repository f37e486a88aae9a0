"""`python -m pyrafuse`, the same as `pyrafuse`."""

import sys

from pyrafuse.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
