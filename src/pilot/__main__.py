"""`python -m pilot VERB …`, which is `pilot VERB …`."""

import sys

from pilot.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
