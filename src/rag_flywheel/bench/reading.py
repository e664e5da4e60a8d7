"""Explains a benchmark result in sentences: its protocol, its users, and what each number means.

It reads the settings in the result's JSON and measures nothing; it must not know how they are shown.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from rag_flywheel.errors import counted

Json: TypeAlias = Mapping[str, Any]

_READING = (
    (
        "The runs",
        "In “votes” users see the flywheel's own hits, as in use. The others are controls. In “fixed "
        "exposure” they see the static ranking's hits in every cycle, which tells learning from "
        "showing. In “random votes” every verdict is a coin toss: a gain there comes from which hits are "
        "shown for similar queries, not from what votes say, and a loss is the price of noise. In "
        "“no votes” only the refreshes happen, so that line should be level. Lines that coincide "
        "hide one another.",
    ),
    (
        "The rankings compared",
        "Each rule starts from the same passages and vectors, and learns, if it learns, from the votes "
        "of “fixed exposure”; only “flywheel” learns from votes on its own hits. A weight “on dev” was "
        "the best for that collection's dev queries, which neither vote nor are scored; other "
        "weights were not chosen here. An oracle knows the answers: it shows what reranking could "
        "reach at most.",
    ),
    (
        "Differences",
        "A difference is the mean over the test queries of nDCG@10 minus that of the static hybrid for "
        "the same query. Its 95 % interval is a percentile bootstrap over queries, and p comes from a "
        "two-sided paired randomisation test: how often a difference at least as large appears when "
        "the two values of each query are swapped at random. Both speak of other test queries like "
        "these, not of other users, seeds or collections, and neither is corrected for the number of "
        "comparisons on this page. Helped and hurt are the shares of test queries whose nDCG@10 "
        "is higher and lower. “Flywheel ahead” is the flywheel's mean minus that of the row, learning from "
        "votes on its own hits, and below it from the very votes that the rules learn from.",
    ),
    (
        "Near-duplicates",
        "Some test queries nearly repeat a train query, and memory alone can answer those. A second "
        "table leaves them out.",
    ),
    (
        "Measures",
        "nDCG@10, R@k (recall: the share of a query's relevant passages among the first k) and P@8 "
        "(the share of the first 8 hits that are relevant) are better when higher. harmful@8, the share "
        "of the first 8 hits that a truthful user would call harmful, is better when lower. Judged@8 is "
        "the share of the first 8 hits that the qrels mention at all. Where qrels list only relevant "
        "passages, Judged@8 equals P@8 and, with 8 hits, harmful@8 is 1 − P@8: three names for one "
        "number. With one relevant passage a query, P@8 cannot exceed 1/8, and R@1 is the share of "
        "queries answered by the first hit. A passage that answers but is not in the qrels counts as "
        "wrong.",
    ),
    (
        "Slices",
        "Near, related and far part the test queries by how like a train query they are; other slices "
        "overlap them. Fewer queries make wider intervals.",
    ),
    (
        "Lag and exposure",
        "The correction lag counts test queries whose "
        "first hit was wrong before any vote, those of them that became right and stayed so, and the "
        "median of the cycles it took. The Gini index of exposure is 0 when every passage was shown "
        "equally often and near 1 when a few got all the showing; few queries a cycle alone make it high.",
    ),
)
_READING_OF_A_STREAM = {
    "Slices": (
        "Questions asked again are those of the stream, scored once each in the same words, though "
        "some came once and some very often; those asked often are among them. All other slices hold "
        "test queries. Rephrased ones "
        "have exactly the right passages of a question of the stream. Related and far ones "
        "have needs that nobody asked about; they are told apart by the cosine to the nearest question of "
        "the stream. These three share no question; the last slice overlaps them. Each table row compares "
        "the flywheel, which learns from votes on its own hits, with the static hybrid on the same "
        "questions. The flywheel's own ranking before any vote is a hybrid with other weights, so a "
        "difference to the static hybrid is not all due to votes; what votes changed has its own table. "
        "Fewer questions make wider intervals."
    ),
    "Rules for repeated questions": (
        "“Bayes on own votes” multiplies the static chance of a passage by ((1 − ε) / ε)^(helpful − "
        "harmful) of the votes that the question itself got, and is told the users' true ε. It is what "
        "can be had where the same words come again, and nothing elsewhere. “Memory without a model” adds "
        "the votes on similar questions, weighted by similarity, to the hybrid; its constants are fixed, "
        "but for the weight “on dev” of its second row."
    ),
    "Refreshes": (
        "After each cycle the gate decides whether new weights of the prior go live. The rates of wrong "
        "votes and the kernel, by which votes count for similar questions, are estimated from all votes "
        "and go live without it. A threshold θ near 1 or 0 neighbours means that votes count for the same "
        "question alone."
    ),
}


def how_to_read(result: Json) -> list[tuple[str, str]]:
    """(topic, sentences) that explain the protocol and what each number means, as plain text."""
    p = result["protocol"]
    if p.get("traffic") is not None:
        shared = {"The protocol": _stream(p), "The users": _people(p), **dict(_READING)}
        return list({**shared, **_READING_OF_A_STREAM}.items())
    most = p.get("max_train")
    some = "" if most is None else f", {most} at most,"
    protocol = (
        f"{p['name']} simulates people who use an index and vote. The train queries of a collection "
        f"are shuffled by the seed{some} and cut into {p['n_cycles']} parts of about equal size. In each "
        "cycle the queries of one part are asked, each by another user, sixteen at a time, who may "
        "vote on what is shown; then the index is refreshed and the test queries are scored. Cycle 0 is "
        "before any vote. Test queries never get a vote: what they gain was learned from other queries."
    )
    return [("The protocol", protocol), ("The users", _users(p["k"], p["users"])), *_READING]


def _stream(p: Json) -> str:
    traffic = p["traffic"]
    n = "as many questions as the collection has train queries"
    if traffic["n_asked"] is not None:
        n = counted(traffic["n_asked"], "question")
    return (
        f"{p['name']} simulates a help desk. Train queries with the same right passages are phrasings of "
        f"one need. The seed orders the needs; a share of {traffic['unasked']:g} is never asked about. The "
        f"stream holds {n}, repeats included: the need at place r is asked in proportion to "
        f"r^−{traffic['exponent']:g} (Zipf's law), and so is the phrasing at place r within its need. It is "
        f"shuffled once, is the same in every run, and is cut into {p['n_cycles']} parts. In each "
        "cycle the questions of one part are asked, sixteen at a time, by users who may vote on what "
        "is shown; then the index is refreshed and all scored questions are ranked. Cycle 0 is before any "
        "vote. Test queries never get a vote, and none has the words of a question of the stream."
    )


def _people(p: Json) -> str:
    traffic = p["traffic"]
    return (
        f"{traffic['n_users']} users ask all questions, each with a name and habits of their own around "
        f"these averages; all have asked a question before one asks it again. A user votes after a share "
        f"of their questions, {traffic['willingness']:g} on average. {_users(p['k'], p['users'])}"
    )


_ANSWER_INPUT = {
    "text": "the answer's text, a sentence or two of the passage",
    "cited": "which hit it was written from",
    "nothing": "nothing of the answer",
}


def _users(k: int, users: Json) -> str:
    eps = f"with probability {users['eps']:g} the verdict is the wrong one."
    if users["answer_level"]:
        sentences = [
            f"An answer is written from one of {k} hits: with probability {users['careful']:g} the first "
            "that answers the query by the qrels, if there is one, else any, the hit at rank r "
            "with probability proportional to 1/r. A user judges that answer alone: it is helpful if "
            f"its hit answers the query; {eps} The flywheel is told {_ANSWER_INPUT[users['told']]}; the "
            "rules compared with, which know votes on passages alone, are told the hit."
        ]
    else:
        sentences = [
            f"A user sees {k} hits and looks at the hit at rank r with probability r^−{users['eta']:g}. A "
            "hit looked at gets a vote, “helpful” if the qrels say that it answers the query and "
            f"“harmful” if not; {eps}"
        ]
        if users["trust"]:
            sentences.append(
                "A hit at rank r that does not answer is taken for helpful, for its rank alone, with "
                f"probability {users['trust']:g} / r."
            )
    if users["malicious"]:
        sentences.append(
            f"A share of {users['malicious']:g} of the users attacks instead (“{users['attack']}”) and "
            "votes on every hit."
        )
    return " ".join(sentences)
