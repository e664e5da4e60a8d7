"""The files of a version that depend on passages alone."""

from collections.abc import Mapping

from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.index.graph import FOLDER as GRAPH_FOLDER
from rag_flywheel.index.lexical import LEXICAL_FOLDER, TOKENS_FOLDER
from rag_flywheel.index.parts import DERIVED_FOLDER, STATISTICS_FOLDER
from rag_flywheel.index.vector_files import FOLDER as VECTORS_FOLDER

INDEX_PARTS = (
    VECTORS_FOLDER,
    GRAPH_FOLDER,
    LEXICAL_FOLDER,
    TOKENS_FOLDER,
    STATISTICS_FOLDER,
    DERIVED_FOLDER,
)
"""Their folders."""
Files = Mapping[str, tuple[str, int]]
"""By the name of a file, its hash and its bytes."""


def index_files(manifest: Manifest) -> Files:
    """Those of a version that must be there."""
    files = manifest.files.items()
    return {name: state for name, state in files if name.split("/")[0] in INDEX_PARTS}
