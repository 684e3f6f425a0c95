#!/usr/bin/env bash
# Make .venv with the package and everything it needs: what `make setup` runs.
# usage: [TORCH=cpu] tools/setup_environment.sh [PYTHON]
#
# PYTHON  interpreter to use. Without it: that of a .venv which is there already, else one that
#         has Detectron2, else the newest.
# TORCH   build of torch: cpu, cu126, ... (an index of PyTorch's), or the address of another
#         index. Without it: PyPI's, which is for GPUs.
set -euo pipefail
cd "$(dirname "$0")/.."

OLDEST=10 NEWEST=14  # of Python 3, as in setup.py
given=${1:-}
torch=${TORCH:-}

fail() {
    echo "error: $*" >&2
    exit 1
}

is_supported() {
    "$1" -c "import sys; sys.exit(not (3, $OLDEST) <= sys.version_info[:2] <= (3, $NEWEST))" 2> /dev/null
}
has_detectron2() { "$1" -c 'import detectron2' 2> /dev/null; }
has_venv() { "$1" -c 'import ensurepip, venv' 2> /dev/null; }
base_of() { "$1" -c 'import sys; print(sys.base_prefix)'; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

find_candidates() {
    if [ -n "$given" ]; then
        echo "$given"
        return
    fi
    for ((minor = NEWEST; minor >= OLDEST; minor--)); do echo "python3.$minor"; done
    echo python3
}

choose_python() {
    local candidate supported=() without_venv=""
    while read -r candidate; do
        if is_supported "$candidate"; then supported+=("$candidate"); fi
    done < <(find_candidates)
    if [ ${#supported[@]} -eq 0 ]; then
        fail "no Python 3.$OLDEST to 3.$NEWEST found (tried: $(find_candidates | paste -sd ' '))." \
            "Install one (Debian, Ubuntu: apt-get install python3-venv), or name it:" \
            "make setup PYTHON=/path/to/python3"
    fi
    for candidate in "${supported[@]}"; do
        if has_detectron2 "$candidate" && has_venv "$candidate"; then
            python=$candidate
            return
        fi
    done
    for candidate in "${supported[@]}"; do
        if has_venv "$candidate"; then
            python=$candidate
            return
        fi
        without_venv=${without_venv:-$candidate}
    done
    fail "$without_venv cannot make virtual environments. Install its venv module" \
        "(Debian, Ubuntu: apt-get install python$(version_of "$without_venv")-venv)."
}

# An environment that another interpreter or build of torch began is of no use.
can_be_kept() {
    [ -z "$torch" ] && is_supported .venv/bin/python && .venv/bin/python -m pip --version > /dev/null 2>&1 &&
        { [ -z "$given" ] || [ "$(base_of "$given")" = "$(base_of .venv/bin/python)" ]; }
}

make_venv() {
    choose_python
    echo "Making .venv with $python ($("$python" --version))."
    if has_detectron2 "$python"; then
        # Not if $python is itself a virtual environment: another one does not see its packages.
        "$python" -m venv --clear --system-site-packages .venv
        if has_detectron2 .venv/bin/python; then return; fi
    fi
    "$python" -m venv --clear .venv
}

install() { .venv/bin/python -m pip install --prefer-binary "$@"; }

install_torch() {
    local index=$torch
    case $index in
        */*) ;;
        *) index=https://download.pytorch.org/whl/$torch ;;
    esac
    # No other index that pip is set up with may fill in. What torch itself needs comes later, from
    # PyPI, with the rest.
    PIP_EXTRA_INDEX_URL=$index install --no-deps --index-url "$index" --constraint constraints.txt torch torchvision ||
        fail "TORCH=$torch: $index cannot be reached, or has no $(paste -sd ' ' < <(grep == constraints.txt))" \
            "for Python $(version_of .venv/bin/python) (pip's reason is above)." \
            "Without TORCH the build on PyPI is taken."
}

can_be_kept || make_venv
constraints=(--constraint constraints.txt)
if grep -q 'include-system-site-packages = true' .venv/pyvenv.cfg; then
    echo "Detectron2 is there already and is kept, and so are its torch and torchvision."
    constraints=()
elif [ -n "$torch" ]; then
    install_torch
else
    echo "Installing into .venv: about 6 GB with torch, a few minutes."
fi
install "${constraints[@]}" --editable '.[dev]' ||
    fail "not everything could be installed for Python $(version_of .venv/bin/python) (pip's reason is above)." \
        "Another Python may do: make setup PYTHON=python3.12"
.venv/bin/python -m steatosis_d2.install_detectron2
# Where one of two OpenCVs is uninstalled, an empty cv2 stays behind.
.venv/bin/python -c 'import cv2; cv2.__version__' ||
    fail "OpenCV cannot be loaded (the reason is above). The one for servers needs no other libraries:" \
        ".venv/bin/python -m pip uninstall --yes opencv-python opencv-contrib-python opencv-python-headless;" \
        "make setup"
