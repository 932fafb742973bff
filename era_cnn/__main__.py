"""`python -m era_cnn` is the command `era-cnn`."""

import sys

from era_cnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
