#!/bin/bash
# Traces kernels in QEMU and holds the outcome to what is kept and to itself, then lets everything fail
# that can. Takes some minutes.
#
#   kernel/vm/trace-test.sh [--failures] CELLBENCH KERNELPROOF [IMAGE...]
#
# IMAGE: as `cellbench trace --kernel` takes them; by default a package of each generation. For each:
# two traces of all rows are byte-equal, each took less than 5 minutes, and no operation that touches
# its cell alone differs from the kept trace of the same release in results/trace, if there is one. (What
# wakes a worker or begins a grace period depends on what the kernel does by itself at that time, which
# another build of the guest's program moves.) Then the failures, on the first
# image: each must be one line and leave neither a process nor a file behind. --failures: these alone.
set -euo pipefail
failures_only=""
if [ "${1:-}" = --failures ]; then failures_only=yes; shift; fi
cellbench=$(realpath "$1")
program=$(realpath "$2")
shift 2
images=("$@")
[ ${#images[@]} -gt 0 ] ||
    images=(linux-image-6.18.15+deb13-cloud-amd64 linux-binary-7.1.13+deb13-cloud-amd64)
root=$(cd "$(dirname "$0")/../.." && pwd)
rows=timer-set_callback,timer-set_callback@nmi,timer-start,timer-cancel,timer-start-cancel
rows=$rows,timer-cancel_async,timer-start-cancel_async,wq-set_callback,bpf_spin_lock,bpf_res_spin_lock
rows=$rows,bpf_res_spin_lock_irqsave
work=$(mktemp -d)
mounted=""
finish() {
    [ -z "$mounted" ] || umount "$mounted"
    rm -rf "$work"
}
trap finish EXIT
failed=0

check() {
    local name=$1
    shift
    if "$@"; then echo "ok      $name"; else echo "FAILED  $name"; failed=$((failed + 1)); fi
}

trace() { "$cellbench" trace --program "$program" "$@"; }

# Fails unless the command ends with status 2 and one line that holds the text $1.
refuses() {
    local text=$1 status=0
    shift
    "$@" >"$work/out" 2>"$work/err" || status=$?
    [ $status = 2 ] && [ "$(grep -c 'error:' "$work/err")" = 1 ] && grep -q -- "$text" "$work/err" ||
        { echo "status $status"; cat "$work/err"; return 1; }
}

# Fails unless the command ends well, says $1 on one line, and has traced row $2.
goes_on() {
    local text=$1 row=$2
    shift 2
    "$@" >"$work/out" 2>"$work/err" || { cat "$work/err"; return 1; }
    [ "$(grep -c -- "$text" "$work/err")" = 1 ] && grep -q -A1 "^$row\$" "$work/out" ||
        { cat "$work/err" "$work/out"; return 1; }
}

# Nothing but what is kept on purpose: the plugin, images, apt's lists and the data.
leaves_nothing() {
    local left
    left=$(find "$1" -mindepth 1 -maxdepth 2 ! -name cache ! -name 'trace-plugin-????????????????.so' \
        ! -name '*.vmlinuz' ! -name 'apt-*' ! -name '*.json')
    [ -z "$left" ] || { echo "left: $left"; return 1; }
}

gone() { for _ in $(seq 50); do [ -d "/proc/$1" ] || return 0; sleep 0.1; done; return 1; }

# Starts a trace and sets `command` and `qemu` to the processes.
start() {
    "$cellbench" trace --program "$program" --kernel "$image" --rows timer-start --out "$work/k" \
        >/dev/null 2>"$work/err" &
    command=$!
    qemu=""
    for _ in $(seq 600); do
        qemu=$(pgrep -P $command -f 'qemu-system.* -kernel' || true)
        [ -z "$qemu" ] || break
        sleep 0.1
    done
}

if [ -z "$failures_only" ]; then
    for image in "${images[@]}"; do
        for n in 1 2; do
            mkdir -p "$work/$n"
            began=$SECONDS
            trace --kernel "$image" --out "$work/$n" >"$work/$n/table" 2>"$work/$n/log" ||
                cat "$work/$n/log"
            took=$((SECONDS - began))
            check "$image: all rows in $took s, less than 300" [ $took -lt 300 ]
        done
        file=$(basename "$(ls "$work"/1/*.json | tail -n 1)")
        check "$image: two traces are byte-equal" cmp "$work/1/$file" "$work/2/$file"
        kept=$root/results/trace/$file
        if [ -f "$kept" ]; then
            check "$image: as kept" trace --kernel "$work/2/$file" --against "$kept" --rows "$rows"
        fi
        rm -f "$work"/[12]/*.json
    done
fi

image=${images[0]}
if [ ! -f "$image" ]; then
    # Fetched once, used as a file from here on.
    trace --kernel "$image" --rows timer-empty --out "$work/1" >/dev/null 2>&1 || true
    image=$(find "$work/1/cache" -name '*.vmlinuz' | head -n 1)
fi
[ -f "$image" ] || { echo "no image to fail with" >&2; exit 2; }

check "no image" refuses "neither a file" trace --kernel /nonexistent --out "$work/f"
printf 'no image' >"$work/text"
check "no kernel image" refuses "not an x86 kernel image" trace --kernel "$work/text" --out "$work/f"
check "no such package" refuses "no package linux-image-no-such" \
    trace --kernel linux-image-no-such --out "$work/1"
check "no guest program" refuses "kernelproof" \
    "$cellbench" trace --kernel "$image" --program /nonexistent --out "$work/f"
check "no QEMU" refuses "apt-get install qemu-system-x86" \
    env PATH="$work" "$cellbench" trace --program "$program" --kernel "$image" --out "$work/f"
check "no type description" refuses "no BTF at" \
    trace --kernel "$image" --rows timer-start --fault no-btf --out "$work/f"
check "nothing left behind" leaves_nothing "$work/f"

check "a panic: named, and the next row" \
    goes_on "timer-start: the guest panicked: .*sysrq triggered crash" bpf_spin_lock \
    trace --kernel "$image" --rows timer-start,bpf_spin_lock --fault panic:timer-start --out "$work/f"
check "a hang: named, and the next row" goes_on "timer-start: the guest hung: " bpf_spin_lock \
    trace --kernel "$image" --rows timer-start,bpf_spin_lock --fault hang:timer-start --silence 90s \
    --out "$work/f"
check "nothing left behind by either" leaves_nothing "$work/f"

if [ "$(id -u)" = 0 ]; then
    mkdir "$work/small"
    mount -t tmpfs -o size=7m tmpfs "$work/small"
    mounted=$work/small
    check "full disk" refuses "no storage space\|No space left" trace --kernel "$image" --out "$work/small"
    check "nothing left on the full disk" leaves_nothing "$work/small"
fi

start
kill -KILL $command
wait $command 2>/dev/null || true
check "kill -9 of the command ends QEMU" gone "${qemu:-none}"
check "kill -9 of the command leaves nothing behind" leaves_nothing "$work/k"

start
kill -KILL "$qemu"
status=0
wait $command || status=$?
check "kill -9 of QEMU is one line" grep -q "qemu-system-x86_64 was killed" "$work/err"
check "kill -9 of QEMU: exit status 2" [ $status = 2 ]
check "kill -9 of QEMU leaves nothing behind" leaves_nothing "$work/k"

echo "$failed failed"
[ $failed = 0 ]
