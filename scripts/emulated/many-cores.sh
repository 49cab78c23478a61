#!/usr/bin/env bash
# A host with many CPUs, emulated: boots a guest of 2 packages with SMT and 4 NUMA nodes, one of them
# without memory, an offline CPU and isolated ones, and has it run doctor, topology, run, stress and
# report; takes a CPU away in mid-run, shrinks a cpuset, runs out of memory. How long anything takes
# there means nothing: all virtual CPUs share those of this host.
#
#   scripts/emulated/many-cores.sh [CPUS [PART]]     64 unless named, a multiple of 8, 32 or more
#
# PART is topology (with placements and doctor; 32 CPUs fit into a minute), runs, faults, unplug (the last of
# the faults), or whole.
# Takes the command from $CELLBENCH, or target/release/cellbench. With KVM where the processors have it,
# else QEMU translates. KEEP=DIR keeps what the guest left. Exit status 0 if every check held.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/emulated/guest.sh
cpus=${1:-64}
part=${2:-whole}
case $part in whole | topology | runs | faults | unplug) ;; *) guest_fail "unknown argument $part; see the head of $0" ;; esac
[ $((cpus % 8)) = 0 ] || guest_fail "$cpus CPUs cannot be divided into 4 nodes of whole cores"
[ "$cpus" -ge 32 ] || guest_fail "$cpus CPUs are too few for eight numbers of threads; from 32 on"
cellbench=$(realpath "${CELLBENCH:-${CARGO_TARGET_DIR:-target}/release/cellbench}")
guest_needs qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio

cat scripts/emulated/job.sh scripts/emulated/many-cores.job.sh >"$guest_work/job"
cp "$cellbench" "$guest_work/cellbench"
guest_archive "$guest_work/job" "$(command -v busybox)" "$guest_work/cellbench"

quarter=$((cpus / 4))
machine=(-machine q35 -m 6G -smp "$cpus,sockets=2,cores=$((cpus / 4)),threads=2")
for node in 0 1 2; do
    machine+=(-object "memory-backend-ram,id=m$node,size=2G"
        -numa "node,nodeid=$node,cpus=$((node * quarter))-$(((node + 1) * quarter - 1)),memdev=m$node")
done
machine+=(-numa "node,nodeid=3,cpus=$((3 * quarter))-$((cpus - 1))")
if [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then
    # Not every nested KVM that offers this register also takes it.
    machine+=(-accel kvm -cpu host,-arch-capabilities)
    seconds=1800
    emulated=0
else
    # One virtual CPU at a time: with several, a CPU here may run the instruction that the kernel has just
    # patched away on another.
    machine+=(-accel "tcg,thread=single")
    # Its own model is an AMD without SMT.
    machine+=(-cpu "max,vendor=GenuineIntel,family=6,model=106")
    seconds=7200
    emulated=1
fi
# The virtual CPUs wait for those of this host: what looks like a hang there is none.
append="console=ttyS0 panic=-1 quiet nowatchdog no_timer_check rcupdate.rcu_cpu_stall_suppress=1 tsc=reliable"
append="$append lpj=4000000 isolcpus=$((cpus - 4))-$((cpus - 1))"
append="$append cellbench.cpus=$cpus cellbench.emulated=$emulated cellbench.part=$part"
status=0
guest_run $seconds "$append" qemu-system-x86_64 "${machine[@]}" -kernel "$(guest_image)" || status=$?
if [ -n "${KEEP:-}" ]; then
    mkdir -p "$KEEP"
    cp -r "$guest_work/out/." "$KEEP/"
fi
printf 'many-cores %d: status %d\n' "$cpus" $status
exit $status
