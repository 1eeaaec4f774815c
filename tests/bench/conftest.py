"""The benchmark is no part of the installed package: it is found next to the tests."""

import sys
from pathlib import Path

# Last, so that no folder of the repository hides an installed package.
sys.path.append(str(Path(__file__).parent.parent.parent))
