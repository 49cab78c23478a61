#!/bin/bash
# Measures two kernels in virtual machines, their rounds interleaved, under emulation: instructions are
# counted in place of time. Then what can happen to a machine: a panic, a kill, the command's own end.
# Takes some minutes.
#
#   kernel/vm/pair-test.sh CELLBENCH KERNELPROOF BEFORE AFTER
#
# BEFORE, AFTER: as `cellbench kernel --vm` takes them; files are best.
set -euo pipefail
cellbench=$(realpath "$1")
program=$(realpath "$2")
before=$3 after=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

check() {
    local name=$1
    shift
    if "$@"; then echo "ok      $name"; else echo "FAILED  $name"; failed=$((failed + 1)); fi
}

export CARGO_TARGET_DIR=$work/target
flags=(--vm "$after" --against "$before" --program "$program" --window 2ms --time-budget 30m --seed 1
    --out "$work/runs")

# The rows of the last run: lines of its record, newest run last.
rounds() { cat "$(ls -d "$work"/runs/*/ | grep -v latest | tail -n 1)rounds.jsonl"; }
run() { cat "$(ls -d "$work"/runs/*/ | grep -v latest | tail -n 1)run.json"; }

measured() {
    "$cellbench" kernel "${flags[@]}" --instructions "$@" >"$work/out" 2>"$work/err" ||
        { cat "$work/err"; return 1; }
}

# Every row was measured as often in both kernels.
is_paired() {
    local count
    count=$(rounds | grep -o '"cell":"[^"]*"' | sort | uniq -c | awk '{ print $1 }' | sort -u | wc -l)
    [ "$count" = 1 ] && [ "$(rounds | grep -o '"cell":"[^"]*"' | sort -u | wc -l)" = 2 ]
}

# Neither kernel always came first.
is_shuffled() {
    local orders
    orders=$(rounds | grep -o '"cell":"[^"]*"' | paste -d' ' - - | sort -u | wc -l)
    [ "$orders" -gt 1 ]
}

gone() { for _ in $(seq 50); do [ -d "/proc/$1" ] || return 0; sleep 0.1; done; return 1; }

# Starts a run, waits for its second machine and sets `command` and `machines`.
start() {
    "$cellbench" kernel "${flags[@]}" --instructions --workloads timer-set_callback --rounds 6 \
        >"$work/out" 2>"$work/err" &
    command=$!
    for _ in $(seq 3000); do
        machines=$(pgrep -P $command -f 'qemu-system.* -kernel' || true)
        [ "$(echo "$machines" | wc -w)" = 2 ] && ls "$work"/runs/*/rounds.jsonl >/dev/null 2>&1 && break
        sleep 0.1
    done
}

# Eight rounds are the least for a verdict.
check "two kernels, two rows" measured --workloads timer-set_callback,timer-start --rounds 8
check "each comparison has a verdict" [ "$(grep -c 'faster\|slower\|same' "$work/out")" -ge 4 ]
check "as many rounds of each" is_paired
check "in shuffled order" is_shuffled
check "instructions, not time" grep -q "a nanosecond of their clock is an instruction" <(run)
cp "$work/out" "$work/table"
rm -rf "$work/runs"

status=0
unshare -m sh -c 'mount -t tmpfs none /dev && exec "$@"' sh \
    "$cellbench" kernel --vm "$after" --program "$program" >"$work/out" 2>"$work/err" || status=$?
refused() { [ $status = 2 ] && [ "$(grep -c 'error: no /dev/kvm' "$work/err")" = 1 ]; }
check "no KVM: no times, in one line" refused

status=0
"$cellbench" kernel "${flags[@]}" --workloads timer-set_callback --rounds 8 >"$work/out" 2>"$work/err" ||
    status=$?
timed() { [ $status = 0 ] && is_paired && rounds | grep -q '"machine":"QEMU with KVM"'; }
in_a_line() { [ $status = 2 ] && [ "$(grep -c 'error: ' "$work/err")" = 1 ] && grep -q kvm "$work/err"; }
timed_or_refused() { timed || in_a_line || { cat "$work/err"; return 1; }; }
check "with this machine's KVM: times, or one line why not" timed_or_refused
grep 'error: ' "$work/err" || true
rm -rf "$work/runs"

check "a panic in each: the run goes on" measured --workloads timer-set_callback,timer-start --rounds 2 \
    --fault panic:timer-start
check "the row is named" grep -q "timer-start (.*the guest panicked: .*sysrq triggered crash" <(run)
check "the other row was measured" is_paired
rm -rf "$work/runs"

start
kill -KILL "$(echo "$machines" | awk '{ print $1 }' | head -n 1)"
status=0
wait $command || status=$?
check "kill -9 of a machine: the run goes on" [ $status = 0 ]
check "the kill is named" grep -q "qemu-system-x86_64 was killed" <(run)
check "both were measured afterwards" [ "$(rounds | grep -o '"cell":"[^"]*"' | sort -u | wc -l)" = 2 ]
rm -rf "$work/runs"

start
kill -KILL $command
wait $command 2>/dev/null || true
all_gone() { local one; for one in $machines; do gone "$one" || return 1; done; }
check "kill -9 of the command ends both machines" all_gone
left() { find "$work/target" -type f ! -name '*.vmlinuz' 2>/dev/null | grep -v apt- ; }
check "and leaves nothing behind" [ -z "$(left || true)" ]

cat "$work/table"
echo "$failed failed"
[ $failed = 0 ]
