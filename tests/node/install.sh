#!/bin/sh
# Installs what the Node clients need, exactly as package-lock.json says, outside the source tree: in target/node.
# tests/node.rs finds it there. Nothing is done if it is already installed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
there=${CARGO_TARGET_DIR:-$here/../../target}/node
mkdir -p "$there"
if cmp -s "$here/package-lock.json" "$there/package-lock.json" && [ -e "$there/installed" ]; then
    exit 0
fi
rm -f "$there/installed"
cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$there/"
(cd "$there" && npm ci --ignore-scripts --no-audit --no-fund)
: > "$there/installed"
