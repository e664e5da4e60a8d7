"""For those who watch the service: whether it lives, whether it is ready, and its metrics."""

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Request, Response

from rag_flywheel.service import metrics
from rag_flywheel.service.answers import answer
from rag_flywheel.service.calls import key_in, service_of
from rag_flywheel.service.problems import Refused, problem

router = APIRouter(tags=["watching"], include_in_schema=False)
_AGAIN_S = "2"


@router.get("/livez")
@router.get("/healthz")
async def lives() -> Response:
    """Whether the process answers; nothing else is looked at."""
    return answer({"status": "ok"})


@router.get("/readyz")
async def ready(request: Request) -> Response:
    """Whether the model and the live version are loaded, and the index can be read and written to.

    In a thread of its own, so that it is told as well while all others wait for a server that is gone.
    """
    own: CapacityLimiter = request.app.state.ready_limiter
    problems, running_s = await to_thread.run_sync(request.app.state.watch.problems, limiter=own)
    if problems:
        return problem(503, "NotReady", "; ".join(problems), headers={"Retry-After": _AGAIN_S})
    return answer({"status": "ready", "refresh_running_s": round(running_s)})


def _may_scrape(request: Request) -> None:
    """Raises Refused without a key that may read every index as a whole, where metrics are not open."""
    if service_of(request).settings.open_metrics:
        return
    key = key_in(request)
    if "read" not in key.scopes or key.tenant is not None or key.indexes is not None:
        raise Refused(
            403,
            "Forbidden",
            "metrics are of all indexes; use a key with the scope read for all of them",
        )


@router.get("/metrics", dependencies=[Depends(_may_scrape)])
def scraped(request: Request) -> Response:
    """The metrics, as Prometheus reads them."""
    accept = request.headers.get("accept", "")
    content, media_type = metrics.exposition(request.app.state.watch, accept)
    return Response(content, headers={"Content-Type": media_type, "Cache-Control": "no-store"})
