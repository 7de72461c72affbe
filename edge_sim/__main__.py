"""`python -m edge_sim`: what sending recordings costs a simulated device."""

import sys

from edge_sim.command_line import main

if __name__ == "__main__":
    sys.exit(main())
