"""LangChain's own tests of retrievers, unchanged."""

from typing import Any

import pytest

pytest.importorskip(
    "langchain_tests", reason="langchain-tests is not installed: make test-integrations"
)
pytest.importorskip("pytest_asyncio", reason="pytest-asyncio is not installed")

from langchain_tests.integration_tests import RetrieversIntegrationTests

from rag_flywheel import Flywheel
from rag_flywheel.integrations.langchain import FlywheelRetriever


class TestFlywheelRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _opened(self, desk: Flywheel) -> None:
        self._desk = desk

    @property
    def retriever_constructor(self) -> type[FlywheelRetriever]:
        return FlywheelRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"flywheel": self._desk}

    @property
    def retriever_query_example(self) -> str:
        return "password"
