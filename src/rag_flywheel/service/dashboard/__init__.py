"""The dashboard: pages for the people who run an index, made on the server by jinja2.

It calls the library in its own process, never over HTTP. Whatever passages, questions and users say is
hostile text: templates escape it, and no page may run a script or load a style but the two of `static/`.
"""
