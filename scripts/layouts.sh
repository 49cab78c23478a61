#!/usr/bin/env bash
# Compares cells over builds that differ in nothing but where their functions lie.
#
# Usage: scripts/layouts.sh BUILDS PAIRS [ARGUMENTS OF `cellbench run`]
#        scripts/layouts.sh 14 mcs/ck-mcs,clh/ck-clh --kinds lock --cells mcs,ck-mcs,clh,ck-clh --threads 1,2
#
# Links the command BUILDS times, each time with its functions shuffled by another seed: a link takes some
# seconds, nothing is compiled again. Measures with each in turn, and gives the comparison over builds, as
# `cellbench builds` explains. FEATURES (default: ck) are those of the build; OUT (default:
# target/layouts) holds a directory for each build, and its run. Needs rust-lld, which Rust links with on
# x86-64 Linux; ld.bfd cannot shuffle.
set -euo pipefail
if [ $# -lt 2 ] || ! [ "$1" -ge 1 ] 2>/dev/null; then
    echo "usage: scripts/layouts.sh BUILDS PAIRS [ARGUMENTS OF cellbench run]" >&2
    exit 2
fi
builds=$1 pairs=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
out=${OUT:-$root/target/layouts}
mkdir -p "$out"
out=$(cd "$out" && pwd)
for build in $(seq "$builds"); do
    (cd "$root" && cargo rustc --release --quiet -p cellbench --bin cellbench --features "${FEATURES-ck}" -- \
        -C link-arg="-Wl,--shuffle-sections=.text*=$build")
    mkdir -p "$out/$build"
    cp "$root/target/release/cellbench" "$out/$build/cellbench"
    # The debug information is not needed again, and is most of the file.
    strip --strip-debug "$out/$build/cellbench" 2>/dev/null || true
done
runs=()
for build in $(seq "$builds"); do
    echo "build $build of $builds" >&2
    "$out/$build/cellbench" run --seed "$build" --out "$out/$build" "$@" >"$out/$build/run.txt"
    runs+=("$out/$build/latest")
done
"$out/1/cellbench" builds "${runs[@]}" --pairs "$pairs"
