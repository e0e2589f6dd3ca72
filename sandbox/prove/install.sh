#!/bin/sh
# Installs the solver that prove.py uses, exactly as requirements.txt says, outside the source tree: in target/prove.
# tests/proofs.rs finds it there. Nothing is done if it is already installed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
there=${CARGO_TARGET_DIR:-$here/../../target}/prove
if cmp -s "$here/requirements.txt" "$there/installed"; then
    exit 0
fi
rm -rf "$there"
python3 -m venv "$there"
"$there/bin/pip" --disable-pip-version-check install --quiet --require-hashes --only-binary :all: -r "$here/requirements.txt"
cp "$here/requirements.txt" "$there/installed"
