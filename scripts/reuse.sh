#!/usr/bin/env bash
# Checks that `cargo run --release -p cellbench` needs no build after `cargo bench`: the features and
# profiles of both must be the same.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo bench --no-run --quiet
said=$(cargo build --release -p cellbench 2>&1)
if grep -q Compiling <<<"$said"; then
    printf 'built again after cargo bench:\n%s\n' "$said" >&2
    exit 1
fi
echo "cargo run --release -p cellbench: nothing to build after cargo bench"
