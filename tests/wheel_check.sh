#!/usr/bin/env bash
# Builds a wheel, installs it in an environment of its own, far from the checkout, and uses it there.
# wheel_check.sh PYTHON: with this interpreter.
set -euo pipefail
python=$(realpath --no-symlinks "${1:-python3}")
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset PYTHONPATH
export HF_HUB_OFFLINE=1

# from a copy, so that no build folder of an earlier layout gets in
git -C "$root" ls-files -z -- src pyproject.toml README.md LICENSE |
    tar -C "$root" --null -T - -cf - | tar -C "$scratch" --one-top-level=source -xf -
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$scratch" "$scratch/source"
wheel=("$scratch"/rag_flywheel-*.whl)

# every file of the package is in it
diff <(cd "$scratch/source/src" && find rag_flywheel -type f ! -name '*.pyc' | sort) \
    <("$python" -m zipfile --list "${wheel[0]}" | awk '/^rag_flywheel\// {print $1}' | sort)

cd "$scratch"
"$python" -m venv venv
venv/bin/python -m pip install --quiet --constraint "$root/constraints.txt" \
    "${wheel[0]}[bundled-model]"
venv/bin/python -c "
import rag_flywheel, pathlib, sys
assert pathlib.Path(rag_flywheel.__file__).is_relative_to(sys.prefix), rag_flywheel.__file__"

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
[ "$(venv/bin/rag-flywheel --version)" = "rag-flywheel $version" ]
cat > passages.jsonl <<'LINES'
{"id": "reset", "text": "Open the settings and press reset to get a new password."}
{"id": "refund", "text": "Refunds are paid within thirty days."}
LINES
venv/bin/rag-flywheel add passages.jsonl
first=$(venv/bin/rag-flywheel retrieve --json "when do I get my money back?" |
    venv/bin/python -c "import json, sys; print(json.load(sys.stdin)['hits'][0]['passage_id'])")
[ "$first" = refund ] || { echo "expected refund first, found $first" >&2; exit 1; }
echo "the wheel of version $version works"
