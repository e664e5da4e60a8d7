"""Clients of the service, with the methods and records of a Flywheel. They need the extra `client`.

`Client` is written by tests/support/synchronous.py from `AsyncClient`, and is the same without `await`.
"""

from rag_flywheel.client.asynchronous.client import AsyncClient
from rag_flywheel.client.synchronous.client import Client
from rag_flywheel.client.tokens import RetrievalWithToken

__all__ = ["AsyncClient", "Client", "RetrievalWithToken"]
