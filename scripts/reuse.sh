#!/usr/bin/env bash
# Checks that `cargo run --release -p cellbench` builds nothing again that `cargo bench` has built: the
# features and profiles of both must be the same.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo bench --no-run --quiet
shared=$(cargo tree -p cellbench-measure -e normal,build --prefix none | awk '{ print $1 }' | sort -u)
built=$(cargo build --release -p cellbench 2>&1 | awk '$1 == "Compiling" { print $2 }' | sort -u)
again=$(comm -12 <(printf '%s\n' "$shared") <(printf '%s\n' "$built"))
if [ -n "$again" ]; then
    printf 'built again after cargo bench:\n%s\n' "$again" >&2
    exit 1
fi
echo "cargo run --release -p cellbench: builds nothing again after cargo bench"
