"""The sample exports in tests/imports/samples, by the tool that they are in the shape of."""

from pathlib import Path

SAMPLES = Path(__file__).parents[1] / "imports" / "samples"
FILES = {
    "langfuse": ["langfuse-observations.jsonl", "langfuse-scores.jsonl"],
    "phoenix": [
        "phoenix-spans.json",
        "phoenix-flat.jsonl",
        "phoenix-otlp.json",
        "phoenix-span-annotations.json",
        "phoenix-document-annotations.jsonl",
    ],
    "langsmith": ["langsmith-feedback.jsonl", "langsmith-runs.jsonl"],
    "ubi": ["ubi-events.json", "ubi-queries.ndjson"],
    "trec": ["trec-qrels.txt", "trec-run.txt", "trec-topics.tsv"],
    "csv": ["votes.csv"],
}
