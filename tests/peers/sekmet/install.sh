#!/usr/bin/env bash
# The FHIR peers of PyPI, in an environment of their own: .venv-peers must never change what the product is tested with.
set -euo pipefail
cd "$(dirname "$0")/../../.."
test -x .venv-peers/bin/python || "${PYTHON:-python3}" -m venv .venv-peers
.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r tests/peers/sekmet/requirements.txt
