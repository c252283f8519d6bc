#!/usr/bin/env bash
# Set up, then lint and test; arguments go to pytest: bash script/test.sh tests/unit -k config
set -euo pipefail
folder=$(dirname -- "${BASH_SOURCE[0]}")
# shellcheck source=setup.sh
. "$folder/setup.sh" --tests
cd "$repository"
export HF_HUB_OFFLINE=1 UNSLOTH_DISABLE_STATISTICS=1 MPLBACKEND=Agg
"$python" -m ruff check train.py component script tests data
"$python" -m pytest "$@"
