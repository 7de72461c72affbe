"""`python -m amser`: the client's command line."""

import sys

from amser.client.command_line import main

if __name__ == "__main__":
    sys.exit(main())
