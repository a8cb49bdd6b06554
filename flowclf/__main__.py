"""``python -m flowclf``: the command line, as ``torchrun -m flowclf`` starts it."""

import sys

from flowclf.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
