"""``python -m tensorspec`` is the command ``tensorspec``, where that is not on the path."""

import sys

from tensorspec.cli import main

if __name__ == "__main__":
    sys.exit(main())
