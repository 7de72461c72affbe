"""`python -m amser`: a device on the command line."""

import sys

from amser.client.commands.send import main

if __name__ == "__main__":
    sys.exit(main())
