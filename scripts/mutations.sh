#!/usr/bin/env bash
# Switches on one single change to the code after the other, and says which check found it:
# mutations/src/list.rs. Builds all checks once. `--only TEXT` takes the mutations, `--by TEXT`
# the checks, whose names contain the text, `--write docs/mutations.md` keeps the table.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --quiet -p cellbench-mutations --example run -- "$@"
