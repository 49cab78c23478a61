#!/usr/bin/env bash
# An Arm host, emulated: runs the tests of locks, cells and clock and a short `stress` under qemu-user, on a
# processor with exclusive pairs alone and on one with LSE; boots a guest whose processor has a PMU, for the
# main job with counters and without, and Criterion's benches. Times mean nothing, and neither does the
# order of memory: QEMU gives a guest the order of its own host. What is shown: the paths of Arm (cntvct,
# exclusive loads and stores, LSE, accesses of parts of a word) and its counters.
#
#   scripts/emulated/arm.sh [tests|guest]     both unless named
#
# Takes the command from $CELLBENCH, or builds it. Exit status 0 if every check held.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/emulated/guest.sh
target=aarch64-unknown-linux-gnu
sysroot=/usr/aarch64-linux-gnu
guest_needs aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu cpio:cpio
[ -e $sysroot/lib/libc.so.6 ] || guest_fail "no $sysroot/lib/libc.so.6: install libc6-dev-arm64-cross"
rustup target add $target >/dev/null 2>&1
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
built=${CARGO_TARGET_DIR:-target}/$target/debug
cellbench=${CELLBENCH:-$built/cellbench}

# check NAME COMMAND...: runs it, and says how it ended and after how long.
failed=0
check() {
    local name=$1 from=$SECONDS
    shift
    if "$@"; then
        printf 'ok      %s (%d s)\n' "$name" $((SECONDS - from))
    else
        printf 'FAILED  %s (%d s)\n' "$name" $((SECONDS - from))
        failed=$((failed + 1))
    fi
}

# cross COMMAND ARGUMENT...: cargo, for Arm.
cross() {
    local command=$1
    shift
    cargo "$command" --quiet --target $target "$@"
}

# slices: cells under `stress`, two threads against each other, each slice in a process that ends without a
# finding. One by one, because the command starts itself again for a slice, which nothing translates here.
slices() {
    local cell seed=1
    for cell in spin-tas spin-queued rqspin cmpxchg-state cas16-pair rcu-pair seqlock-pair seq-latch-v6 \
        mpmc-cell hazard-ref percpu-ref cmd-queue; do
        $runner "$cellbench" stress --order '{"cell":"'$cell'","kind":"timer","workload":"churn","cpus":[0,1],
            "window_ms":500,"seed":'$seed',"interrupt_rate_hz":null,"stepped":false}' >"$guest_work/said" ||
            return
        if ! grep -q '"violations":\[\]' "$guest_work/said" || grep -q '"objects_allocated":0' "$guest_work/said"; then
            printf '%s: ' $cell
            cat "$guest_work/said"
            return 1
        fi
        seed=$((seed + 1))
    done
}

tests() {
    guest_needs qemu-aarch64-static:qemu-user-static
    local cpu
    # The first is one of Armv8.0, with exclusive pairs alone; the second has LSE. Each program asks its
    # processor.
    for cpu in cortex-a57 max; do
        printf '== qemu-user, -cpu %s\n' $cpu
        runner="qemu-aarch64-static -cpu $cpu -L $sysroot"
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$runner
        check "tests of impls" cross test -p cellbench-impls --lib
        check "tests of the clock" cross test -p cellbench-host --lib clock::
        check "slices of stress" slices
    done
    [ $failed = 0 ]
}

# libraries PROGRAM: what it is linked with, as ldd would say.
libraries() {
    printf '/lib/%s\n' ld-linux-aarch64.so.1 libc.so.6 libm.so.6 libgcc_s.so.1
}

# newest DIR PATTERN: the program there that was built last.
newest() {
    find "$1" -name "$2" -perm -u+x -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2
}

guest() {
    local cache=${CARGO_TARGET_DIR:-$PWD/target}/kernel-vm
    guest_needs qemu-system-aarch64:qemu-system-arm
    { cross test --no-run -p cellbench-host --test live && cross test --no-run -p cellbench-criterion \
        --test measurement && cross build -p cellbench-criterion --bench ops; } ||
        guest_fail "the tests of counters cannot be built for $target"
    cp "$(newest "$built/deps" 'live-*')" "$guest_work/live"
    cp "$(newest "$built/deps" 'measurement-*')" "$guest_work/measurement"
    cp "$(newest "$built/deps" 'ops-*')" "$guest_work/ops"
    mkdir -p "$cache"
    [ -s "$cache/busybox-arm64" ] || kernel/vm/fetch-image.sh busybox-static sid "$cache" \
        "$cache/busybox-arm64" arm64 '/busybox$' || guest_fail "no busybox for arm64"
    [ -s "$cache/linux-image-cloud-arm64-sid.vmlinuz" ] || kernel/vm/fetch-image.sh \
        linux-image-cloud-arm64 sid "$cache" "$cache/linux-image-cloud-arm64-sid.vmlinuz" arm64 ||
        guest_fail "no kernel image for arm64"
    cat scripts/emulated/job.sh scripts/emulated/arm.job.sh >"$guest_work/job"
    cp "$cellbench" "$guest_work/cellbench"
    GUEST_LDD=libraries GUEST_SYSROOT=$sysroot GUEST_STRIP=aarch64-linux-gnu-strip guest_archive \
        "$guest_work/job" "$cache/busybox-arm64" "$guest_work/cellbench" \
        "$guest_work/live" "$guest_work/measurement" "$guest_work/ops"
    # An instruction is 8 ns of the guest's time: about as long as one takes.
    guest_run 5400 "console=ttyAMA0 panic=-1 quiet nowatchdog" \
        qemu-system-aarch64 -machine virt,gic-version=3 -cpu max,pauth-impdef=on -smp 2 -m 2G \
        -icount shift=3,sleep=off -kernel "$cache/linux-image-cloud-arm64-sid.vmlinuz"
}

[ -n "${CELLBENCH:-}" ] || cross build -p cellbench || guest_fail "cellbench cannot be built for $target"
status=0
case ${1:-} in
tests) tests || status=$? ;;
guest) guest || status=$? ;;
'')
    tests || status=$?
    guest || status=$?
    ;;
*) guest_fail "unknown argument $1; see the head of $0" ;;
esac
printf 'arm: status %d\n' $status
exit $status
