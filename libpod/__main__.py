# SPDX-License-Identifier: Apache-2.0
"""`python -m libpod` is the `libpod` command; so is this file by its path, which is how
conmon calls it: whatever is on the module path there, this library is used."""

import os
import sys

if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from libpod.cli import main

if __name__ == "__main__":
    sys.exit(main())
