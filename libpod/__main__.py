# SPDX-License-Identifier: Apache-2.0
"""`python -m libpod` is the `libpod` command."""

import sys

from libpod.cli import main

if __name__ == "__main__":
    sys.exit(main())
