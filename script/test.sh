#!/usr/bin/env bash
# Set up, then lint and test; arguments go to pytest: bash script/test.sh tests/unit -k config
# Without any, all tests run in two processes, each with files of its own, since fixtures are a file's or a process'.
set -euo pipefail
folder=$(dirname -- "${BASH_SOURCE[0]}")
# shellcheck source=setup.sh
. "$folder/setup.sh" --tests
cd "$repository"
export HF_HUB_OFFLINE=1 UNSLOTH_DISABLE_STATISTICS=1 MPLBACKEND=Agg
"$python" -m ruff check train.py component script tests data
[ $# -gt 0 ] || set -- -n 2 --dist loadfile
"$python" -m pytest "$@"
