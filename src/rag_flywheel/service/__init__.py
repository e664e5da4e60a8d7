"""The HTTP service: everything a Flywheel does, for applications in any language and on other machines.

Needs the extra `service`. `rag-flywheel serve` starts it; `create_app` is its ASGI application.
"""
