#!/usr/bin/env bash
# Make .venv with the package and everything it needs: what `make setup` runs.
# usage: tools/setup_environment.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."

supported() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }
has_detectron2() { "$1" -c 'import detectron2' 2>/dev/null; }

python=""
for candidate in ${1:-python3 python3.12 python3.11 python3.10}; do
    if supported "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    echo "error: no Python 3.10 to 3.12 found (tried: ${1:-python3 python3.12 python3.11 python3.10});" \
        "install one, or name it: make setup PYTHON=/path/to/python3.11" >&2
    exit 1
fi

constraints="--constraint constraints.txt"
"$python" -m venv .venv
if has_detectron2 "$python"; then
    # Not if $python is itself a virtual environment: another one does not see its packages.
    "$python" -m venv --system-site-packages .venv
    if has_detectron2 .venv/bin/python; then
        echo "Detectron2 of $python is kept, and so are its torch and torchvision."
        constraints=""
    else
        "$python" -m venv --clear .venv
    fi
fi
echo "Installing into .venv: about 6 GB with torch, a few minutes."
# shellcheck disable=SC2086  (no constraints means no argument)
.venv/bin/python -m pip install $constraints --editable '.[dev]'
.venv/bin/python -m steatosis_d2.install_detectron2
