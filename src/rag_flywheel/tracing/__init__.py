"""Calls of a Flywheel as others follow them: what they record, and spans of OpenTelemetry."""
