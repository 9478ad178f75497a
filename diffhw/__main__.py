"""``python -m diffhw`` is the command ``diffhw``."""

import sys

from diffhw.cli import main

sys.exit(main())
