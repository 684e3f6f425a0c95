#!/usr/bin/env bash
# What the tests of the screening page need, from Debian's or Ubuntu's packages, if it is not there
# yet: Chromium, and a library of Playwright's. `make test` runs this. Without them these tests are
# skipped, and say so.
set -euo pipefail

needed=()
if [ -z "$(command -v chromium chromium-browser google-chrome)" ]; then
    needed+=(chromium fonts-dejavu-core)
fi
if [[ $(PATH=$PATH:/sbin ldconfig -p) != *libatomic.so.1* ]]; then
    needed+=(libatomic1)
fi
if [ ${#needed[@]} -eq 0 ]; then exit 0; fi

as_root=""
if [ "$(id -u)" -ne 0 ]; then as_root="sudo -n"; fi
# shellcheck disable=SC2086  (root needs no word before the command)
if ! { $as_root apt-get update && $as_root apt-get install --yes --no-install-recommends "${needed[@]}"; }; then
    echo "${needed[*]} could not be installed: the tests of the screening page in a browser are" \
        "skipped. To run them: apt-get install ${needed[*]}" >&2
fi
