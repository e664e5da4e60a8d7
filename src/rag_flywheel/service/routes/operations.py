"""What operators do: refreshes as jobs, versions, privacy requests, and the state of the index."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from rag_flywheel.records import (
    AuditReport,
    Comparison,
    DpCounts,
    Health,
    PastRefresh,
    Status,
    VersionInfo,
    VersionStory,
)
from rag_flywheel.service import jobs
from rag_flywheel.service.answers import answer, schema_of
from rag_flywheel.service.bodies import (
    AuditBody,
    DpCountsBody,
    OptOutBody,
    RefreshBody,
    RollbackBody,
    Tenants,
    UserBody,
)
from rag_flywheel.service.calls import Call, needs
from rag_flywheel.service.problems import READS, WRITES
from rag_flywheel.service.repeats import OnceRoute
from rag_flywheel.store.service.jobs import Job, JobKind

router = APIRouter(tags=["operations"], route_class=OnceRoute)
Operator = Annotated[Call, needs("admin", whole_index=True)]
Watcher = Annotated[Call, needs("read", whole_index=True)]
ReaderOfOne = Annotated[Call, needs("read")]


class Live(BaseModel):
    """The version that is live."""

    version: str


class Released(BaseModel):
    """Whether a version was held before."""

    released: bool


class Problems(BaseModel):
    """What is wrong with the folder, a sentence each; empty when it is sound."""

    problems: list[str]


class OptedOut(BaseModel):
    """Whether nothing of the user is recorded from now on."""

    out: bool


def _begin(call: Call, kind: JobKind, arguments: Mapping[str, object]) -> Response:
    folder = call.service.settings.indexes[call.name]
    job = jobs.begin(call.service.state, call.name, folder, kind, arguments)
    where = f"/v1/indexes/{call.name}/jobs/{job.id}"
    return answer(job, 202, {"Location": where})


@router.post("/refresh", status_code=202, response_model=schema_of(Job), responses=WRITES)
def refresh(body: RefreshBody, call: Operator) -> Response:
    """Begin a refresh: a job that builds the next version, checks it and makes it live."""
    given = {"if_votes": body.if_votes, "max_age_s": body.max_age_s, "tune": body.tune}
    return _begin(call, "refresh", given)


@router.get("/jobs", response_model=list[schema_of(Job)], responses=READS)  # type: ignore[misc]
def listed_jobs(call: Operator) -> Response:
    """The jobs of the index, the newest first; those that ended stay for a week."""
    return answer(jobs.listed(call.service.state, call.name))


@router.get("/jobs/{job_id}", response_model=schema_of(Job), responses=READS)
def job(job_id: str, call: Operator) -> Response:
    """A job, and how far it is."""
    return answer(jobs.find(call.service.state, call.name, job_id))


@router.post("/jobs/{job_id}:cancel", response_model=schema_of(Job), responses=WRITES)
def cancel(job_id: str, call: Operator) -> Response:
    """Stop a job; the index is as it was before, or as the job has made it if it had just ended."""
    return answer(jobs.cancel(call.service.state, call.name, job_id))


@router.get("/versions", response_model=list[schema_of(VersionInfo)], responses=READS)  # type: ignore[misc]
def versions(call: Watcher) -> Response:
    """The versions on disk, the newest first."""
    return answer(call.fw.versions())


@router.get("/versions/{version:path}", response_model=schema_of(VersionStory), responses=READS)
def version(version: str, call: Watcher) -> Response:
    """How a version got its parameters."""
    return answer(call.fw.explain_version(version))


@router.get("/refreshes", response_model=list[schema_of(PastRefresh)], responses=READS)  # type: ignore[misc]
def refreshes(call: Watcher, n: Annotated[int, Query(ge=1, le=1000)] = 50) -> Response:
    """The refreshes that ended, the newest first, with the numbers of the gate."""
    return answer(call.fw.refreshes(n))


@router.get("/compare", response_model=schema_of(Comparison), responses=READS)
def compare(
    call: Annotated[Call, needs("review", whole_index=True)],
    before: Annotated[str, Query(description="The id of a version.")],
    after: Annotated[str, Query(description="The id of another one.")],
    n: Annotated[int, Query(ge=1, le=1000, description="Of so many questions.")] = 100,
    k: Annotated[int, Query(ge=1, le=1000, description="In so many best passages.")] = 8,
) -> Response:
    """The questions asked most that two versions answer otherwise."""
    return answer(call.fw.compare(before, after, n=n, k=k))


@router.post("/rollback", response_model=Live, responses=WRITES)
def rollback(body: RollbackBody, call: Operator) -> Response:
    """Make an earlier version live."""
    if body.version is None:
        call.require_first("GET /v1/versions")
    return answer({"version": call.fw.rollback(body.version, hold=body.hold)})


@router.post("/release", response_model=Released, responses=WRITES)
def release(call: Operator) -> Response:
    """End a rollback, so that later votes count and refreshes go on."""
    return answer({"released": call.fw.release()})


@router.post("/users:forget", status_code=202, response_model=schema_of(Job), responses=WRITES)
def forget(body: UserBody, call: Operator) -> Response:
    """Begin to delete all data of a user and what was learned from them: a job."""
    return _begin(call, "forget", {"user_id": body.user_id})


@router.post("/users:opt-out", response_model=OptedOut, responses=WRITES)
def opt_out(body: OptOutBody, call: Operator) -> Response:
    """Record nothing of a user from now on, or record them again."""
    call.fw.opt_out(body.user_id, out=body.out)
    return answer({"out": body.out})


@router.post("/audit", response_model=schema_of(AuditReport), responses=READS)
def audit(body: AuditBody, call: Operator) -> Response:
    """Count personal data in what is stored, by field and kind."""
    return answer(call.fw.audit(regions=body.regions, passages=body.passages, show=body.show))


@router.post("/dp-counts", response_model=schema_of(DpCounts), responses=WRITES)
def dp_counts(body: DpCountsBody, call: Annotated[Call, needs("admin")]) -> Response:
    """Differentially private counts of users."""
    return answer(
        call.fw.dp_counts(
            body.what,
            epsilon=body.epsilon,
            delta=body.delta,
            most_keys=body.most_keys,
            **call.tenant(body.tenant, body.all_tenants),
        )
    )


@router.get("/status", response_model=schema_of(Status), responses=READS)
def status(call: Watcher) -> Response:
    """The state of the index in numbers."""
    return answer(call.fw.status())


@router.get("/health", response_model=schema_of(Health), responses=READS)
def health(call: Watcher, max_age_s: Annotated[float | None, Query(gt=0)] = None) -> Response:
    """Whether the index can be served and is being refreshed."""
    return answer(call.fw.health(max_age_s=max_age_s))


@router.get("/metadata-keys", response_model=dict[str, list[str]], responses=READS)
def metadata_keys(call: ReaderOfOne, tenants: Tenants) -> Response:
    """The metadata keys of the passages, with the kinds of their values."""
    return answer(call.fw.metadata_keys(**call.tenant(*tenants)))


@router.post("/verify", response_model=Problems, responses=READS)
def verify(call: Operator) -> Response:
    """Look for damage in the folder of the index."""
    return answer({"problems": call.fw.verify()})
