"""`python -m hotstart` is the command line."""

import sys

from hotstart.cli import main

if __name__ == "__main__":
    sys.exit(main())
