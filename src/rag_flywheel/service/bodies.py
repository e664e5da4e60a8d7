"""The bodies of requests. What a value may be is checked by the library; here is their shape."""

from typing import Annotated, Any, Literal

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from rag_flywheel.records import Signal, Verdict
from rag_flywheel.store.service.names import tenant_named

_QUESTION = "I forgot my password"
Text = StrictStr
TenantGiven = Annotated[
    StrictStr | StrictInt | None, Field(description="The tenant that the call is for.")
]


WhereTenant = Annotated[
    dict[str, Any] | None, Field(description="A filter that names the tenant, and nothing else.")
]


RunId = Annotated[
    StrictStr | list[StrictStr] | None,
    Field(
        description="The run of a framework, or the trace, that it belongs to, or several: feedback may "
        "name it."
    ),
]


RunOfRetrieval = Annotated[
    StrictStr | None,
    Field(description="In place of retrieval_id: a run that its retrievals were recorded under."),
]


class Body(BaseModel):
    """A body in which nothing is ignored: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class Tenanted(Body):
    """Where the index has tenants: the one it is for, or all."""

    tenant: TenantGiven = None
    all_tenants: StrictBool = False


class _Asked(Tenanted):
    k: Annotated[StrictInt, Field(description="How many hits, at most.", examples=[3])] = 8
    where: Annotated[
        dict[str, Any] | None, Field(description="A filter on metadata.", examples=[{"lang": "en"}])
    ] = None
    record: Annotated[StrictBool, Field(description="Record it, so that it takes votes.")] = True
    min_relevance: Annotated[
        StrictFloat | None, Field(description="Leave out hits whose relevance is below it.")
    ] = None


class RetrieveBody(_Asked):
    """A question."""

    query: Annotated[Text, Field(examples=[_QUESTION])]
    user_id: Text | None = None
    session_id: Text | None = None
    run_id: RunId = None
    feedback_token: Annotated[
        StrictBool,
        Field(description="Add a token, by which a browser may vote on this retrieval alone."),
    ] = False


class RetrieveManyBody(_Asked):
    """Questions to be answered at once."""

    queries: Annotated[list[Text], Field(examples=[[_QUESTION, "When are refunds paid?"]])]
    run_id: Annotated[
        StrictStr | list[StrictStr | list[StrictStr] | None] | None,
        Field(description="A run that all belong to; or a list with the run, or runs, of each."),
    ] = None


class RankManyBody(Tenanted):
    """Questions whose rankings are wanted, for evaluation."""

    queries: Annotated[list[Text], Field(examples=[[_QUESTION]])]
    k: StrictInt = 8
    where: dict[str, Any] | None = None
    min_relevance: StrictFloat | None = None


class CandidateBody(Body):
    """A passage that the application's own retriever found."""

    passage_id: Text
    text: Text
    score: StrictFloat
    title: Text = ""
    metadata: dict[str, Any] = Field(default_factory=dict)


class RerankBody(_Asked):
    """A question and the application's own candidates."""

    query: Annotated[Text, Field(examples=[_QUESTION])]
    candidates: list[CandidateBody]
    user_id: Text | None = None
    session_id: Text | None = None
    run_id: RunId = None
    feedback_token: StrictBool = False


class OfARetrieval(Tenanted):
    """What a user says of a retrieval, named by its id or by a run that it belongs to."""

    retrieval_id: Text | None = None
    run: RunOfRetrieval = None


class OneVote(Body):
    """A verdict on one hit of a retrieval. Of a run, on its newest retrieval that showed the passage."""

    retrieval_id: Text | None = None
    run: RunOfRetrieval = None
    passage_id: Annotated[Text, Field(examples=["reset"])]
    verdict: Annotated[Verdict, Field(examples=["helpful"])]
    user_id: Text | None = None
    reason: Text | None = None


class VoteBody(OneVote, Tenanted):
    """A verdict on one hit of a retrieval. Of a run, on its newest retrieval that showed the passage."""


class RunBody(Tenanted):
    """A run that a retrieval belongs to."""

    retrieval_id: Text
    run_id: Annotated[Text, Field(examples=["request 4711"])]


class SignalBody(OfARetrieval):
    """What a user did with an answer, or with one passage of it."""

    kind: Annotated[Signal, Field(examples=["copied"])]
    value: Any = None
    passage_id: Text | None = None
    user_id: Text | None = None


class VotesBody(Tenanted):
    """Verdicts on hits, all recorded or none."""

    votes: list[OneVote]


class RelevanceBody(OfARetrieval):
    """Verdicts on hits of one retrieval: helpful where true, else harmful."""

    helpful: Annotated[dict[str, StrictBool], Field(examples=[{"reset": True, "refund": False}])]
    user_id: Text | None = None


class AnswerFeedbackBody(OfARetrieval):
    """A verdict on a whole answer."""

    verdict: Annotated[Verdict, Field(examples=["helpful"])]
    answer: Annotated[Text | None, Field(description="Its text; only the shares are stored.")] = (
        None
    )
    cited: Annotated[
        list[Text] | None, Field(description="The passages that it cites; null: not known.")
    ] = None
    user_id: Text | None = None


class AdoptedBody(OfARetrieval):
    """Whether an answer was used."""

    used: StrictBool
    why: Text = ""
    cited: Annotated[
        list[Text] | None, Field(description="The passages that it was made of; null: not known.")
    ] = None
    user_id: Text | None = None


class CorrectionBody(OfARetrieval):
    """The passage that is the answer, or the words of it: one of them."""

    passage_id: Annotated[Text | None, Field(examples=["reset"])] = None
    text: Text | None = None
    user_id: Text | None = None


class MissingBody(OfARetrieval):
    """That the answer is missing."""

    note: Text = ""
    user_id: Text | None = None


class AnswerBody(Tenanted):
    """The answer that the application gave."""

    text: Text


class BrowserBody(Body):
    """What a page sends: the feedback_token of an answer says for which retrieval, and as whom."""

    token: Annotated[Text, Field(description="The feedback_token of an answer.")]


class BrowserVoteBody(BrowserBody):
    """A verdict on one hit."""

    passage_id: Annotated[Text, Field(examples=["reset"])]
    verdict: Annotated[Verdict, Field(examples=["helpful"])]
    reason: Text | None = None


class BrowserAnswerBody(BrowserBody):
    """A verdict on the whole answer. cited: the passages that it cites; null: not known."""

    verdict: Annotated[Verdict, Field(examples=["helpful"])]
    cited: list[Text] | None = None


class BrowserSignalBody(BrowserBody):
    """What the user did with the answer, or with one passage of it."""

    kind: Annotated[Signal, Field(examples=["copied"])]
    value: Any = None
    passage_id: Text | None = None


class BrowserMissingBody(BrowserBody):
    """That the answer is missing."""

    note: Text = ""


class PassageBody(Body):
    """A text to retrieve."""

    text: Annotated[Text, Field(examples=["Refunds are paid within 30 days."])]
    title: Annotated[Text, Field(examples=["Refund policy"])] = ""
    metadata: Annotated[dict[str, Any], Field(examples=[{"lang": "en"}])] = Field(
        default_factory=dict
    )


class NewPassage(PassageBody):
    """A text to retrieve, and its id."""

    id: Annotated[Text, Field(examples=["refund"])]


class PassagesBody(Body):
    """Passages to add or update, and the ids of those to remove, in one step."""

    passages: list[NewPassage]
    remove: list[Text] = Field(default_factory=list)
    tenant: TenantGiven = None


class RemoveBody(Tenanted):
    """The ids of passages to remove."""

    ids: Annotated[list[Text], Field(examples=[["refund"]])]


class VotesBehindBody(Tenanted):
    """The event numbers of the votes that a hit rests on: its `explanation.votes`."""

    votes: Annotated[
        list[Annotated[StrictInt, Field(ge=1, lt=2**63)]],
        Field(max_length=100_000, examples=[[1, 2]]),
    ]


class RatersBody(Body):
    """Ids of users that the caller knows, to be matched with the stored hashes."""

    names: Annotated[list[Text], Field(examples=[["ann"]])]


class PinBody(Tenanted):
    """The passage that comes first for a question."""

    query: Annotated[Text, Field(examples=[_QUESTION])]
    passage_id: Annotated[Text, Field(examples=["reset"])]
    where: WhereTenant = None
    grade: StrictInt = 1


class UnpinBody(Tenanted):
    """The pin that is taken back."""

    query: Annotated[Text, Field(examples=[_QUESTION])]
    passage_id: Annotated[Text, Field(examples=["reset"])]
    where: WhereTenant = None


class KnownRow(Body):
    """A passage that is known to answer a question. grade: 1 to 100, the best the highest; 0: it does not."""

    query: Annotated[Text, Field(examples=[_QUESTION])]
    passage_id: Annotated[Text, Field(examples=["reset"])]
    grade: Annotated[StrictInt, Field(ge=0, le=100)] = 1


class KnownBody(Tenanted):
    """Known answers."""

    answers: list[KnownRow]


class DecisionBody(Tenanted):
    """Who decides."""

    user_id: Text | None = None


class AcceptBody(DecisionBody):
    """Who decides. text: what becomes the passage in place of the text that a user wrote."""

    text: Text | None = None


class UndoBody(Tenanted):
    """Whose decision is taken back, by whom. item_id: null: the last one."""

    item_id: Text | None = None
    user_id: Text | None = None


class RefreshBody(Body):
    """When to refresh, and whether to tune the encoder too."""

    if_votes: Annotated[
        StrictInt | None, Field(ge=1, description="Only after this many new votes.")
    ] = None
    max_age_s: Annotated[
        StrictFloat | None, Field(gt=0, description="Or when the live version is this old.")
    ] = None
    tune: StrictBool = False


class RollbackBody(Body):
    """version: the one to make live; null: the one before. hold: refreshes leave it live until `release`."""

    version: Text | None = None
    hold: StrictBool = False


class UserBody(Body):
    """A user, by the id that the application knows them by."""

    user_id: Annotated[Text, Field(examples=["ann"])]


class OptOutBody(UserBody):
    """A user, and whether nothing of them is recorded from now on."""

    out: StrictBool = True


class MuteBody(Body):
    """Users whose votes are left out: one by id, others by the hashes that `raters` lists."""

    user_id: Annotated[Text | None, Field(examples=["ann"])] = None
    raters: list[Text] = Field(default_factory=list)


class AuditBody(Body):
    """Where to look for personal data."""

    regions: list[Text] = Field(default_factory=list)
    passages: StrictBool = False
    show: Annotated[StrictBool, Field(description="Also return what was found.")] = False


class DpCountsBody(Tenanted):
    """What to count, and at what loss of privacy."""

    what: Literal["votes", "questions", "missing"] = "votes"
    epsilon: StrictFloat = 1.0
    delta: StrictFloat = 1e-6
    most_keys: StrictInt = 10


async def _tenants(
    tenant: Annotated[
        str | None, Query(description="The tenant; a number or text in JSON, or plain text.")
    ] = None,
    all_tenants: Annotated[bool, Query(description="All tenants.")] = False,
) -> tuple[str | int | None, bool]:
    return tenant_named(tenant), all_tenants


Tenants = Annotated[tuple[str | int | None, bool], Depends(_tenants)]
"""The tenant of a call without a body: (tenant, all_tenants)."""
