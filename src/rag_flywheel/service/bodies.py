"""The bodies of requests. What a value may be is checked by the library; here is their shape."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from rag_flywheel.records import Signal, Verdict

_QUESTION = "I forgot my password"
Text = StrictStr
TenantGiven = Annotated[
    StrictStr | StrictInt | None, Field(description="The tenant that the call is for.")
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
        float | None, Field(description="Leave out hits whose relevance is below it.")
    ] = None


class RetrieveBody(_Asked):
    """A question."""

    query: Annotated[Text, Field(examples=[_QUESTION])]
    user_id: Text | None = None
    session_id: Text | None = None
    feedback_token: Annotated[
        StrictBool,
        Field(description="Add a token, by which a browser may vote on this retrieval alone."),
    ] = False


class RetrieveManyBody(_Asked):
    """Questions to be answered at once."""

    queries: Annotated[list[Text], Field(examples=[[_QUESTION, "When are refunds paid?"]])]


class RankManyBody(Tenanted):
    """Questions whose rankings are wanted, for evaluation."""

    queries: Annotated[list[Text], Field(examples=[[_QUESTION]])]
    k: StrictInt = 8
    where: dict[str, Any] | None = None
    min_relevance: float | None = None


class CandidateBody(Body):
    """A passage that the application's own retriever found."""

    passage_id: Text
    text: Text
    score: float
    title: Text = ""
    metadata: dict[str, Any] = Field(default_factory=dict)


class RerankBody(_Asked):
    """A question and the application's own candidates."""

    query: Annotated[Text, Field(examples=[_QUESTION])]
    candidates: list[CandidateBody]
    user_id: Text | None = None
    session_id: Text | None = None
    feedback_token: StrictBool = False


class OneVote(Body):
    """A verdict on one hit of a retrieval."""

    retrieval_id: Text
    passage_id: Annotated[Text, Field(examples=["reset"])]
    verdict: Annotated[Verdict, Field(examples=["helpful"])]
    user_id: Text | None = None
    reason: Text | None = None


class VoteBody(OneVote, Tenanted):
    """A verdict on one hit of a retrieval."""


class SignalBody(Tenanted):
    """What a user did with an answer, or with one passage of it."""

    retrieval_id: Text
    kind: Annotated[Signal, Field(examples=["copied"])]
    value: Any = None
    passage_id: Text | None = None
    user_id: Text | None = None


class VotesBody(Tenanted):
    """Verdicts on hits, all recorded or none."""

    votes: list[OneVote]


class RelevanceBody(Tenanted):
    """Verdicts on hits of one retrieval: helpful where true, else harmful."""

    retrieval_id: Text
    helpful: Annotated[dict[str, StrictBool], Field(examples=[{"reset": True, "refund": False}])]
    user_id: Text | None = None


class AnswerFeedbackBody(Tenanted):
    """A verdict on a whole answer."""

    retrieval_id: Text
    verdict: Annotated[Verdict, Field(examples=["helpful"])]
    answer: Annotated[Text | None, Field(description="Its text; only the shares are stored.")] = None
    cited: Annotated[
        list[Text] | None, Field(description="The passages that it cites; null: not known.")
    ] = None
    user_id: Text | None = None


class AdoptedBody(Tenanted):
    """Whether an answer was used."""

    retrieval_id: Text
    used: StrictBool
    why: Text = ""
    user_id: Text | None = None


class CorrectionBody(Tenanted):
    """The passage that is the answer, or the words of it: one of them."""

    retrieval_id: Text
    passage_id: Annotated[Text | None, Field(examples=["reset"])] = None
    text: Text | None = None
    user_id: Text | None = None


class MissingBody(Tenanted):
    """That the answer is missing."""

    retrieval_id: Text
    note: Text = ""
    user_id: Text | None = None


class AnswerBody(Tenanted):
    """The answer that the application gave."""

    text: Text
