"""The bodies of requests. What a value may be is checked by the library; here is their shape."""

from typing import Annotated, Any, Literal

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


class VoteBody(Tenanted):
    """A verdict on one hit of a retrieval."""

    retrieval_id: Text
    passage_id: Annotated[Text, Field(examples=["reset"])]
    verdict: Annotated[Verdict, Field(examples=["helpful"])]
    user_id: Text | None = None
    reason: Text | None = None


class SignalBody(Tenanted):
    """What a user did with an answer, or with one passage of it."""

    retrieval_id: Text
    kind: Annotated[Signal, Field(examples=["copied"])]
    value: Any = None
    passage_id: Text | None = None
    user_id: Text | None = None


Anchors = Literal["github", "mkdocs", "vitepress"]
