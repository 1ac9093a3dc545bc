"""`python -m dso_robotics.cli`."""

import sys

from dso_robotics.cli import main

sys.exit(main())
