#!/usr/bin/env bash
# The long checks, on demand: what .ci/run leaves out for time. Each step runs whatever the others
# said; the summary at the end names each with its status and seconds, and the exit status is 1 if any
# failed. Some hours on 2 cores; STRESS_SECONDS shortens the longest step.
set -uo pipefail
cd "$(dirname "$0")/.."
summary=""
failed=0

step() {
    local name=$1 limit=$2 from=$SECONDS status=0
    shift 2
    printf '\n== %s (at most %d s): %s\n' "$name" "$limit" "$*"
    timeout --kill-after=10 "$limit" "$@" || status=$?
    [ $status -eq 0 ] || failed=1
    summary+=$(printf '%-16s %5d s   status %d' "$name" $((SECONDS - from)) $status)$'\n'
}

models=(cargo test --release -p cellbench-impls --features loom,shuttle,planted)

features=cellbench/planted,cellbench/png,cellbench-plots/browser
bpf=()
fleet=(-p cellbench)
if kernel/install-deps.sh; then
    features+=,cellbench/kernel
    bpf=(--test live --test trace)
    fleet=(-p cellbench -p cellbench-kernel --features cellbench/kernel)
fi
# A C library's locks, where its headers are.
if [ -e /usr/include/ck_spinlock.h ]; then
    features+=,cellbench/ck
    step peers 1200 cargo test -p cellbench-impls --features ck --test peers
fi
for target in aarch64-unknown-linux-gnu x86_64-unknown-linux-musl; do
    rustup target add "$target"
    RUSTFLAGS="-D warnings" step "${target%%-*}" 900 cargo check --quiet --target "$target" \
        -p cellbench -p cellbench-kernel
done
step lints-all 1800 cargo clippy --workspace --all-targets --quiet \
    --features "$features,cellbench-impls/loom,cellbench-impls/shuttle" -- -D warnings
step browser 300 plots/browser/install-deps.sh
step optional 2400 cargo test -p cellbench -p cellbench-plots -p cellbench-kernel \
    --features "$features" --test cli_stress --test browser "${bpf[@]}"
step reuse 600 scripts/reuse.sh
step inputs 3600 env CELLBENCH_INPUTS="${INPUTS:-10000}" cargo test -p cellbench-record \
    -p cellbench-host -p cellbench-sim -p cellbench-fleet -p cellbench-kernel --test inputs
step command-lines 1200 env CELLBENCH_INPUTS="${INPUTS:-10000}" cargo test -p cellbench --lib cmd::inputs
step packages 300 scripts/packages.sh
# Single changes to the code, each of which its check must find.
step mutations 3600 scripts/mutations.sh
step order 1200 "${models[@]}" --lib lock::
step proof 3600 "${models[@]}" --test proof
step proof-deeper 14400 env CELLBENCH_PREEMPTIONS=3 "${models[@]}" --test proof -- bounded/
step stress $((${STRESS_SECONDS:-3600} + 600)) \
    cargo run --release -p cellbench -- stress --seconds "${STRESS_SECONDS:-3600}"
step sanitizers 3600 scripts/sanitize.sh
step simulator 3600 cargo test --release -p cellbench-sim
step large-reports 1800 cargo test --release -p cellbench-plots --test huge
step kernels 3600 kernel/vm/run.sh
# With the command that the step `stress` built.
step many-cores 3600 scripts/emulated/many-cores.sh 32
step arm 5400 scripts/emulated/arm.sh
step many-hosts 1800 env CELLBENCH_RUNS=200,1000,2000 cargo test -p cellbench-plots --test many_hosts
step fleet-build 2400 cargo build "${fleet[@]}"
step fleet 1800 scripts/fleet-check.sh
step fleet-kills 3600 scripts/fleet-check.sh --kill 20

printf '\n== steps\n%s' "$summary"
exit $failed
