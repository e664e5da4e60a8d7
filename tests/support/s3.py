"""A server of S3 for tests: that of moto, in a thread of this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BUCKET = "versions"


@contextmanager
def s3_server() -> Iterator[str]:
    """The URL of a server with an empty bucket, which the environment names meanwhile; skips the test where
    none is installed."""
    server = pytest.importorskip("moto.server", reason="needs moto[server]: make test-objects")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    url = f"http://{host}:{port}"
    own = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        client(url).create_bucket(Bucket=BUCKET)
        yield url
    finally:
        running.stop()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def client(url: str) -> Any:
    """Amazon's own client, which sees what is in the bucket."""
    import boto3

    return boto3.client("s3", endpoint_url=url, region_name="us-east-1")
