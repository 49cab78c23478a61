#!/usr/bin/env bash
# Checks that the package of each crate has what a stranger needs: description, keywords, categories,
# readme, and the texts of both licences.
set -euo pipefail
cd "$(dirname "$0")/.."
status=0
names=$(cargo metadata --no-deps --format-version 1 | grep -o '"manifest_path":"[^"]*"' | cut -d'"' -f4)
for manifest in $names; do
    dir=$(dirname "$manifest")
    name=$(sed -n 's/^name = "\(.*\)"/\1/p' "$manifest" | head -1)
    missing=""
    for key in description readme keywords categories license; do
        grep -q "^$key\b" "$manifest" || missing+=" $key"
    done
    files=$(cargo package --list --allow-dirty --quiet -p "$name")
    for file in README.md LICENSE-MIT LICENSE-APACHE; do
        grep -qx "$file" <<<"$files" && [ -s "$dir/$file" ] || missing+=" $file"
    done
    if [ -n "$missing" ]; then
        printf '%s: the package lacks%s\n' "$name" "$missing" >&2
        status=1
    fi
done
[ $status -ne 0 ] || echo "packages: complete"
exit $status
