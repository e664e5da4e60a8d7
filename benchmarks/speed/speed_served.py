"""The encoder of the service under measurement by `speed_service.py`: vectors from a file, given at once.

Named as "speed_served:encoder" in the settings of the index; the file is named by SPEED_SERVED.
"""

import os
import pickle
from pathlib import Path

from speed_data import Stored


def encoder() -> Stored:
    """The stored vectors of the queries; texts of passages have theirs in the index."""
    vectors = pickle.loads(Path(os.environ["SPEED_SERVED"]).read_bytes())
    return Stored(vectors)
