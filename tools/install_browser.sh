#!/usr/bin/env bash
# Chromium for the tests of the screening page, from Debian's or Ubuntu's packages, if no browser
# is there yet: what `make test` runs. Without one these tests are skipped, and say so.
set -euo pipefail

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" > /dev/null; then exit 0; fi
done

as_root=""
if [ "$(id -u)" -ne 0 ]; then as_root="sudo -n"; fi
# shellcheck disable=SC2086  (root needs no word before the command)
if ! { $as_root apt-get update && $as_root apt-get install --yes --no-install-recommends \
    chromium fonts-dejavu-core; }; then
    echo "No browser, and Chromium could not be installed: tests/test_screening_browser.py is" \
        "skipped. Install one (apt-get install chromium) to run it." >&2
fi
