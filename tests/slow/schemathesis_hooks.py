"""What schemathesis has to be told: how lines of JSON are sent."""

import json
from typing import Any

import schemathesis
from schemathesis.transport.requests import REQUESTS_TRANSPORT


@REQUESTS_TRANSPORT.serializer("application/x-ndjson")
def lines(_: schemathesis.Case, value: Any, **__: Any) -> dict[str, Any]:
    """Any text as it is, other values as JSON."""
    return {"data": value.encode() if isinstance(value, str) else json.dumps(value).encode()}
