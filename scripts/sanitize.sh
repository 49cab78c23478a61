#!/usr/bin/env bash
# Runs the concurrency tests under ThreadSanitizer and AddressSanitizer.
#
#   scripts/sanitize.sh [thread|address]...      default: both
#
# Exit status: 0 all clean, 1 a sanitizer found something or a test failed, 3 a sanitizer cannot be
# used here, after a line that says why.
#
# Toolchain: nightly where there is one, else the installed one with RUSTC_BOOTSTRAP=1; nothing is installed
# but the component rust-src, by rustup, for ThreadSanitizer.
#
# What they see: everything compiled here. For ThreadSanitizer the standard library is compiled too: it
# orders threads by atomics of its own (the end of a scope, the last drop of an `Arc`), and what is not
# instrumented looks like a race. The feature `portable` takes the byte-wide accesses of the queued spinlock
# as whole-word atomics, because no sanitizer sees into inline assembly.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
target=$(rustc -vV | sed -n 's/^host: //p')

# A toolchain that takes -Z flags: nightly, or the installed one told to.
if cargo +nightly --version >/dev/null 2>&1; then
    cargo=(cargo +nightly)
else
    export RUSTC_BOOTSTRAP=1
    cargo=(cargo)
fi

# The standard library's sources, which the toolchain may lack.
sources() {
    local root
    root=$("${cargo[0]/cargo/rustc}" "${cargo[@]:1}" --print sysroot)
    [ ! -f "$root/lib/rustlib/src/rust/library/Cargo.lock" ] || return 0
    printf '== fetching the sources of the standard library (component rust-src)\n'
    rustup component add rust-src ${cargo[1]:+--toolchain "${cargo[1]#+}"} >/dev/null 2>&1
}

# Whether a program with this sanitizer can be built and run; says why not.
usable() {
    local name=$1 dir
    if [ "$name" = thread ] && ! sources; then
        printf '== %s: CANNOT BE USED, the toolchain has no sources of the standard library, and %s\n' \
            "$name" 'rustup cannot fetch them (component rust-src)'
        return 1
    fi
    dir=$(mktemp -d)
    printf 'fn main() {}\n' >"$dir/main.rs"
    if ! "${cargo[0]/cargo/rustc}" "${cargo[@]:1}" ${flags[$name]} --target "$target" \
        -o "$dir/main" "$dir/main.rs" 2>"$dir/said"; then
        printf '== %s: CANNOT BE USED, the compiler says: %s\n' "$name" "$(head -1 "$dir/said")"
    elif ! "$dir/main" 2>"$dir/said"; then
        printf '== %s: CANNOT BE USED, a program with it does not start: %s\n' "$name" \
            "$(head -1 "$dir/said")"
    else
        rm -r "$dir"
        return 0
    fi
    rm -r "$dir"
    return 1
}

declare -A flags=(
    [thread]='-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer'
    [address]='-Zsanitizer=address'
)
# The first finding ends a test with its own status. Leaks: the blocks' own books are exact, and the
# test harness keeps memory that LeakSanitizer would report.
export TSAN_OPTIONS="halt_on_error=1 exitcode=66 history_size=4 suppressions=$PWD/scripts/thread-sanitizer.supp"
export ASAN_OPTIONS='halt_on_error=1 detect_leaks=0 detect_stack_use_after_return=1'

# Real threads on every design under every workload; signals as interruptions where the sanitizer
# lets a handler run where it strikes (ThreadSanitizer puts signals off to the next call into libc).
tests() {
    local name=$1 std=()
    shift
    [ "$name" = address ] || std=(-Zbuild-std)
    RUSTFLAGS="${flags[$name]}" "${cargo[@]}" test "${std[@]}" --target "$target" \
        --target-dir "${CARGO_TARGET_DIR:-target}/sanitize-$name" "$@" 2>&1 | tee -a "$said"
}
# How many tests passed.
passed() { sed -n 's/^test result: ok. \([0-9]*\) passed.*/\1/p' "$said" |
    awk '{ all += $1 } END { print all + 0 }'; }

run() {
    local name=$1
    tests "$name" -p cellbench-trials-stress --features portable \
        --test every_design --test stalled || return
    tests "$name" -p cellbench-workloads --features portable --test callbacks || return
    # AddressSanitizer's allocator places objects anew each time, on other lines.
    tests "$name" -p cellbench-impls --features portable --lib -- \
        --skip the_count_is_the_same_each_time || return
    if [ "$name" = address ]; then
        tests "$name" -p cellbench --features portable --test interrupted || return
    fi
}

status=0
said=$(mktemp)
trap 'rm -f "$said"' EXIT
[ $# -gt 0 ] || set -- thread address
for name in "$@"; do
    if [ -z "${flags[$name]-}" ]; then
        printf 'sanitize.sh: unknown sanitizer %s; known are thread and address\n' "$name" >&2
        exit 2
    fi
    if ! usable "$name"; then
        [ $status -ne 0 ] || status=3
        continue
    fi
    began=$SECONDS
    : >"$said"
    printf '== %s: %s\n' "$name" "$("${cargo[@]}" --version)"
    if run "$name"; then
        printf '== %s: clean, %d tests, %d s\n' "$name" "$(passed)" $((SECONDS - began))
    else
        printf '== %s: FOUND SOMETHING, see above; %d s\n' "$name" $((SECONDS - began))
        status=1
    fi
done
exit $status
