#!/usr/bin/env bash
# The long checks, on demand: what .ci/run leaves out for time. Some hours on two cores.
#
#   scripts/nightly.sh [STEP]...     all steps, or those named; --list prints the names. What needs eBPF is
#                                    left out of steps that are named without kernel-tools
#
# Each step runs whatever the others said. The summary names each with its seconds and status, and says
# which were shortened; a step that was killed at its limit has status 124 or 137. Exit status 1 if any
# failed, 2 if nothing was begun. The environment sets lengths:
#
#   STRESS=1h               `cellbench stress`, in s, m or h
#   INPUTS=10000            damaged inputs for each reader; those that fail are kept in its tests/corpus
#   PROOF=                  the tests of `proof` whose names contain this; none: all
#   PREEMPTIONS=3           of `proof-deeper`
#   CPUS=32                 of the emulated host
#   HOSTS=200,1000,2000     runs in one report
#   KILLS=20                times that a fleet's client is killed
set -uo pipefail
cd "$(dirname "$0")/.."
refuse() {
    printf 'nightly.sh: %s\n' "$*" >&2
    exit 2
}

declare -A full=(
    [STRESS]=1h [INPUTS]=10000 [PROOF]='' [PREEMPTIONS]=3 [CPUS]=32 [HOSTS]=200,1000,2000 [KILLS]=20
)
declare -A length
for name in "${!full[@]}"; do
    length[$name]=${!name-${full[$name]}}
    case $name in
    STRESS) form='^[1-9][0-9]*[smh]$' says='a time such as 5m or 1h' ;;
    HOSTS) form='^[0-9]+(,[0-9]+)*$' says='numbers with commas between' ;;
    PROOF) form='^[[:graph:]]*$' says='a part of a name' ;;
    *) form='^[1-9][0-9]*$' says='a number' ;;
    esac
    [[ ${length[$name]} =~ $form ]] || refuse "$name=${length[$name]}: give $says"
done
# seconds TIME
seconds() {
    case $1 in *h) echo $((${1%h} * 3600)) ;; *m) echo $((${1%m} * 60)) ;; *) echo "${1%s}" ;; esac
}
# shortened NAME: tells whether a length is less than the whole one.
shortened() {
    local given=${length[$1]} whole=${full[$1]}
    case $1 in
    STRESS) [ "$(seconds "$given")" -lt "$(seconds "$whole")" ] ;;
    PROOF) [ -n "$given" ] ;;
    HOSTS) [ "${given##*,}" -lt "${whole##*,}" ] ;;
    *) [ "$given" -lt "$whole" ] ;;
    esac
}

summary=''
failed=0
short=0
listing=0
names=()
# The step that is being run, since when, and its process.
at=''
at_from=0
child=''
# asked NAME: tells whether the step is to be run; only lists it at first.
asked() {
    if [ $listing = 1 ]; then
        names+=("$1")
        return 1
    fi
    [ ${#wanted[@]} = 0 ] || [[ " ${wanted[*]} " == *" $1 "* ]]
}
# left_out NAME WHY
left_out() {
    ! asked "$1" || summary+=$(printf '%-16s NOT RUN: %s' "$1" "$2")$'\n'
}
# step NAME LIMIT COMMAND...: runs the command, for LIMIT seconds at most; its length is that of $by. Returns its
# status, and 1 where it is not asked for.
step() {
    local name=$1 limit=$2 from=$SECONDS status=0 note=''
    shift 2
    asked "$name" || return 1
    printf '\n== %s (at most %d s): %s\n' "$name" "$limit" "$*"
    at=$name at_from=$from
    # In the background, so that a signal to this script ends the step.
    timeout --kill-after=10 "$limit" "$@" &
    child=$!
    wait $child || status=$?
    at=''
    [ $status -eq 0 ] || failed=$((failed + 1))
    if [ -n "${by:-}" ] && shortened "$by"; then
        short=$((short + 1))
        note="   shortened: $by=${length[$by]}, not ${full[$by]:-all}"
    fi
    summary+=$(printf '%-16s %6d s   status %d%s' "$name" $((SECONDS - from)) $status "$note")$'\n'
    return $status
}
report() {
    if [ -n "$at" ]; then
        kill "$child" 2>/dev/null
        wait "$child"
        summary+=$(printf '%-16s %6d s   ENDED by a signal to nightly.sh' "$at" $((SECONDS - at_from)))$'\n'
    fi
    printf '\n== steps\n%s%-16s %6d s   %d failed, %d shortened\n' "$summary" total $SECONDS $failed $short
}

models=(cargo test --release -p cellbench-impls --features loom,shuttle,planted)

steps() {
    local features=cellbench/planted,cellbench/png,cellbench-plots/browser bpf=() fleet=(-p cellbench)
    if step kernel-tools 900 kernel/install-deps.sh; then
        features+=,cellbench/kernel
        bpf=(--test live --test trace)
        fleet=(-p cellbench -p cellbench-kernel --features cellbench/kernel)
    fi
    # A C library's locks, where its headers are.
    if [ -e /usr/include/ck_spinlock.h ]; then
        features+=,cellbench/ck
        step peers 1200 cargo test -p cellbench-impls --features ck --test peers
    else
        left_out peers 'no headers of Concurrency Kit (libck-dev)'
    fi
    for target in aarch64-unknown-linux-gnu x86_64-unknown-linux-musl; do
        step "${target%%-*}" 900 env RUSTFLAGS='-D warnings' sh -c "rustup target add $target &&
            cargo check --quiet --target $target -p cellbench -p cellbench-kernel"
    done
    step lints-all 1800 cargo clippy --workspace --all-targets --quiet \
        --features "$features,cellbench-impls/loom,cellbench-impls/shuttle" -- -D warnings
    step browser 300 plots/browser/install-deps.sh
    step optional 2400 cargo test -p cellbench -p cellbench-plots -p cellbench-kernel \
        --features "$features" --test cli_stress --test browser "${bpf[@]}"
    step reuse 600 scripts/reuse.sh
    by=INPUTS step inputs 5400 env CELLBENCH_INPUTS="${length[INPUTS]}" cargo test -p cellbench-record \
        -p cellbench-host -p cellbench-sim -p cellbench-fleet -p cellbench-kernel -p cellbench-plots \
        --test inputs -- --nocapture
    by=INPUTS step command-lines 1200 env CELLBENCH_INPUTS="${length[INPUTS]}" \
        cargo test -p cellbench --lib cmd::inputs -- --nocapture
    step packages 300 scripts/packages.sh
    # Single changes to the code, each of which its check must find.
    step mutations 3600 scripts/mutations.sh
    step order 1200 "${models[@]}" --lib lock::
    by=PROOF step proof 3600 "${models[@]}" --test proof -- "${length[PROOF]}"
    by=PREEMPTIONS step proof-deeper 14400 env CELLBENCH_PREEMPTIONS="${length[PREEMPTIONS]}" \
        "${models[@]}" --test proof -- bounded/
    by=STRESS step stress $(($(seconds "${length[STRESS]}") + 1800)) cargo run --release -p cellbench -- \
        stress --seconds "$(seconds "${length[STRESS]}")"
    step sanitizers 7200 scripts/sanitize.sh
    step simulator 3600 cargo test --release -p cellbench-sim
    step large-reports 1800 cargo test --release -p cellbench-plots --test huge
    step kernels 3600 kernel/vm/run.sh
    # With the command that the step `stress` built.
    by=CPUS step many-cores 7200 scripts/emulated/many-cores.sh "${length[CPUS]}"
    step arm 5400 scripts/emulated/arm.sh
    by=HOSTS step many-hosts 1800 env CELLBENCH_RUNS="${length[HOSTS]}" \
        cargo test -p cellbench-plots --test many_hosts
    step fleet-build 2400 cargo build "${fleet[@]}"
    step fleet 1800 scripts/fleet-check.sh
    by=KILLS step fleet-kills 3600 scripts/fleet-check.sh --kill "${length[KILLS]}"
}

wanted=("$@")
listing=1
steps
listing=0
if [ "${1:-}" = --list ]; then
    printf '%s\n' "${names[@]}"
    exit 0
fi
for name in "$@"; do
    [[ " ${names[*]} " == *" $name "* ]] || refuse "unknown step $name; --list prints the names"
done
# Also where somebody ends it before its end.
trap report EXIT
trap 'exit 130' INT TERM
steps
[ $failed = 0 ]
