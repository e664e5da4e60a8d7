"""Measures how near questions that have nothing to do with the passages come to them.

An encoder gives every question a nearest passage. How near that is for questions about nothing in
the index depends on the encoder, on how many passages there are and on how broad they are; what
stands out from that has been found for a reason. The best cosine of a question, and so what is
measured, is the same however often a passage is there.
"""

from dataclasses import replace

import numpy as np

from rag_flywheel.deploy.loaded import LoadedVersion
from rag_flywheel.encoder import TextEncoder
from rag_flywheel.rank.calibration import Calibration
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import stored_vectors_of
from rag_flywheel.store.passages import query_hash

UNRELATED = (
    "how do I poach an egg",
    "which screws hold a shelf on plasterboard",
    "why does my sourdough collapse",
    "how often should I water a cactus",
    "what should I wear to a garden party",
    "how do I get gum out of my hair",
    "which saddle suits a long bike ride",
    "how do I knit a scarf with two colours",
    "what do ducks eat in winter",
    "how do I polish brass door handles",
    "which card game can two people play",
    "how do I stop my dog from digging holes",
    "what is the best bait for trout",
    "how do I fix a squeaky floorboard",
    "how long do I boil potatoes for a salad",
    "which yoga pose helps after sitting all day",
    "how do I play a barre chord on the guitar",
    "when do sunflowers bloom",
    "how do I sew on a coat button",
    "which paint covers a damp stain",
    "wie koche ich ein weiches Ei",
    "comment nettoyer un four très sale",
    "cómo se riegan las orquídeas",
    "jak naprawić cieknący kran",
    "怎么煮米饭",
    "как вязать шарф",
    "qweasd zxcrty",
    "fjfj dkdk slsl",
    "jkl jkl uio",
    "blip snorf quandle",
    "zxcv bnm asd",
    "!!! 12 34 ???",
)
"""Questions of everyday life in several languages, and noise. A few of them may be about the passages
after all, so their median is taken for the mean."""
_LEAST_SPREAD = 0.05
_DEVIATION = 1.4826  # the standard deviation of a normal distribution over its median deviation


def with_unrelated(
    calibration: Calibration, database: Database, version: LoadedVersion, encoder: TextEncoder
) -> Calibration:
    """The calibration with `unrelated` and `spread` as measured on the passages of a version.

    Their vectors are stored, so that the encoder is not needed for the next version. An index without
    passages keeps what the calibration has.
    """
    if not len(version.pids):
        return calibration
    texts = {query_hash(text): text for text in UNRELATED}
    vectors = np.stack(list(stored_vectors_of(database, texts, encoder).values()))
    nearest = version.dense.search(vectors, 1)
    dense, typical = version.dense, version.dense.typical_cosine
    cosines = np.array(
        [float(dense.vectors(pids)[0] @ q) for pids, q in zip(nearest, vectors, strict=True)]
    )
    scaled = (cosines - typical) / (1.0 - typical)
    middle = float(np.median(scaled))
    spread = _DEVIATION * float(np.median(np.abs(scaled - middle)))
    return replace(
        calibration, unrelated=round(middle, 4), spread=round(max(spread, _LEAST_SPREAD), 4)
    )
