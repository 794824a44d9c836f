"""Makes the modules beside the bundled pair importable: they are a recipe, not a package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "models"))
