#!/usr/bin/env bash
# Shows `cellbench fleet` on a real Slurm of one node, which it starts and stops: submits a plan of 4
# measured tasks and 16 simulated shards, follows, collects, and compares the joined simulated runs
# with those of one process, byte for byte. Then the things that go wrong.
#
#   scripts/fleet-check.sh --short     that much: what .ci/run does
#   scripts/fleet-check.sh             also a storage that fills up in mid-run, and kernels as tasks
#   scripts/fleet-check.sh --kill N    submits the plan N times and kills slurmd, a task or the
#                                      submitting client at a random moment each time; resumes
#
# Takes the command from $CELLBENCH, or target/debug/cellbench. SEED=N repeats the random moments.
# Kernels need a command that is built with `--features kernel`, and the kernelproof beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${SLURM_ONE_NODE:-}" ]; then
    exec scripts/slurm-one-node.sh run "$0" "$@"
fi
cellbench=$(realpath "${CELLBENCH:-${CARGO_TARGET_DIR:-target}/debug/cellbench}")
work=$(mktemp -d "${TMPDIR:-/tmp}/fleet-check.XXXXXX")
trap 'umount "$work/small" 2>/dev/null || :; rm -rf "$work"' EXIT

fail() {
    printf 'fleet-check: FAILED: %s\n' "$*" >&2
    exit 1
}

# Cells of each measured task.
declare -A measured=(
    [same-cell]='kinds = ["timer"]\ncells = ["spin-queued", "cmpxchg-state"]'
    [churn]='kinds = ["timer"]\ncells = ["spin-queued", "cmpxchg-state"]'
    [solo-set]='kinds = ["timer"]\ncells = ["spin-queued", "cmpxchg-state"]'
    [lock-0ns]='kinds = ["lock"]\ncells = ["spin-queued", "spin-tas"]'
)
# What each simulated run is, as `cellbench sim` takes it.
simulated=(--rounds 2 --cells spin-queued,cmpxchg-state --kinds timer
    --workloads same-cell,churn,solo-set --threads 1,2,4)

# plan NAME: writes $work/NAME.toml.
plan() {
    local workload
    {
        printf 'name = "%s"\ndirectory = "shared"\n' "$1"
        for workload in "${!measured[@]}"; do
            printf '\n[[measure]]\nname = "%s"\nunfit = true\n%b\n' "$workload" "${measured[$workload]}"
            printf 'workloads = ["%s"]\nthreads = [1]\n' "$workload"
            printf 'window = "1ms"\nrounds = 3\n'
        done
        cat <<EOF

[[simulate]]
name = "sweep"
machines = ["xeon-spr-2s", "desktop"]
seeds = [1, 2]
shards = 4
cpus = 1
rounds = 2
cells = ["spin-queued", "cmpxchg-state"]
kinds = ["timer"]
workloads = ["same-cell", "churn", "solo-set"]
threads = [1, 2, 4]
EOF
    } >"$work/$1.toml"
}

# The one line of a command that ends with status 2.
refused() {
    local expected=$1 line status=0
    shift
    line=$("$@" 2>&1 >/dev/null) || status=$?
    [ $status = 2 ] || fail "status $status, not 2: $* : $line"
    [ "$(wc -l <<<"$line")" = 1 ] || fail "more than a line: $line"
    [[ $line == *"$expected"* ]] || fail "no \`$expected\` in: $line"
    printf '  %s\n' "$line"
}

# Each simulated run as one process writes it.
expect_whole_runs() {
    local machine seed
    for machine in xeon-spr-2s desktop; do
        for seed in 1 2; do
            "$cellbench" sim --machine $machine --seed $seed "${simulated[@]}" \
                --out "$work/whole/$machine-$seed" >/dev/null 2>&1
        done
    done
}

# check_collected NAME: every task counted once, and simulated runs to the byte.
check_collected() {
    local shared=$work/shared/$1 machine seed
    "$cellbench" fleet collect "$work/$1.toml" >"$work/report.txt" 2>"$work/notes.txt" ||
        fail "collect: $(cat "$work/notes.txt")"
    for machine in xeon-spr-2s desktop; do
        for seed in 1 2; do
            cmp "$shared/joined/sweep-$machine-seed$seed/latest/rounds.jsonl" \
                "$work/whole/$machine-$seed/latest/rounds.jsonl" ||
                fail "$machine, seed $seed: not the bytes of one process"
        done
    done
    # A host of 4 tasks x 2 cells x 3 rounds; and all lines of the simulated runs.
    local from_hosts from_machines expected
    from_hosts=$(grep -c '"source":"model"' "$shared/merged/latest/rounds.jsonl")
    from_machines=$(grep -c '"source":"sim"' "$shared/merged/latest/rounds.jsonl")
    expected=$(cat "$work"/whole/*/latest/rounds.jsonl | wc -l)
    [ "$from_hosts" = 24 ] || fail "$from_hosts measured rounds in the merged run, not 24"
    [ "$from_machines" = "$expected" ] || fail "$from_machines simulated rounds, not $expected"
    # No row twice in a round.
    local lines unique
    lines=$((from_hosts + from_machines))
    unique=$(sed -E 's/"(position|start_s|duration_s|cpus)":.*//; s/"round":([0-9]+).*/\1/' \
        "$shared/merged/latest/rounds.jsonl" | sort -u | wc -l)
    [ "$unique" = "$lines" ] || fail "$lines rounds, $unique different"
}

show() {
    plan first
    printf '== submit, follow, collect: 4 measured tasks and 16 simulated shards\n'
    "$cellbench" fleet submit "$work/first.toml" --dry-run >"$work/dry.txt"
    grep -q -- '--no-requeue' "$work/dry.txt" || fail "no script shown"
    [ -z "$(squeue --noheader)" ] || fail "a dry run submitted"
    "$cellbench" fleet submit "$work/first.toml" | tail -n 9
    "$cellbench" fleet status --follow "$work/first.toml" | grep 'tasks complete'
    expect_whole_runs
    check_collected first
    cat "$work/notes.txt"
    head -n 12 "$work/report.txt"
    "$cellbench" fleet resume "$work/first.toml" | grep '20 tasks are complete' || fail "resume"

    printf '== what goes wrong\n'
    printf 'name = "bad"\nnmae = 1\n' >"$work/bad.toml"
    refused 'bad.toml: line 2: unknown field `nmae`' "$cellbench" fleet submit "$work/bad.toml"
    printf 'name = "bad"\n[[measure]]\nname = "a"\ncells = ["vax"]\n' >"$work/bad.toml"
    refused '[[measure]] a: unknown cell `vax`' "$cellbench" fleet submit "$work/bad.toml"
    printf 'name = "bad"\npartition = "nowhere"\n[[measure]]\nname = "a"\n' >"$work/bad.toml"
    refused 'unknown partition `nowhere`; this cluster has one' "$cellbench" fleet submit "$work/bad.toml"
    printf 'name = "bad"\n[[measure]]\nname = "a"\nconstraint = "moon"\n' >"$work/bad.toml"
    refused 'a: sbatch: ' "$cellbench" fleet submit "$work/bad.toml"
    refused 'sinfo is not on this host' env PATH=/nowhere "$cellbench" fleet submit "$work/first.toml"
    local marker
    marker=$(ls "$work"/shared/first/tasks/0002/*/complete.json)
    cp "$marker" "$work/marker"
    sed -i 's/"version": "[^"]*"/"version": "0.0.9"/' "$marker"
    refused 'task 2 on ' "$cellbench" fleet collect "$work/first.toml"
    cp "$work/marker" "$marker"
    mv "$marker" "$marker.away"
    refused '1 of 20 tasks are not complete: 2' "$cellbench" fleet collect "$work/first.toml"
    mv "$marker.away" "$marker"
    if [ "$(id -u)" = 0 ]; then
        small_storage
    else
        printf '  full storage: NOT SHOWN, mounting a small one needs root\n'
    fi
}

# A storage without room even for the command.
small_storage() {
    mkdir -p "$work/small"
    if ! mount -t tmpfs -o size=1m tmpfs "$work/small"; then
        printf '  full storage: NOT SHOWN, this root may not mount one\n'
        return 0
    fi
    plan full
    sed -i 's|^directory = .*|directory = "small"|' "$work/full.toml"
    refused 'no space left on the shared storage' "$cellbench" fleet submit "$work/full.toml"
}

# That storage with room for the command and hardly more: the tasks find it full; then there is room.
full_storage() {
    local bytes free
    [ -e "$work/full.toml" ] || return 0
    bytes=$(stat -c %s "$cellbench")
    mount -o remount,size=$((bytes + (1 << 20))) "$work/small"
    "$cellbench" fleet submit "$work/full.toml" --dry-run >/dev/null || fail "submit with some room"
    free=$(df --output=avail -B1 "$work/small" | tail -n 1)
    head -c $((free - 300000)) /dev/zero >"$work/small/fill"
    "$cellbench" fleet submit "$work/full.toml" >/dev/null || fail "submit with little room"
    "$cellbench" fleet status --follow "$work/full.toml" >"$work/full.txt" || :
    # A task that ran out of room, and one that had none to begin, say the same.
    "$cellbench" fleet status "$work/full.toml" >"$work/last.txt" || :
    grep '^failed' "$work/last.txt" >"$work/failed.txt" ||
        fail "no task failed: $(cat "$work/full.txt")"
    ! grep -v -i 'no space left' "$work/failed.txt" || fail "a task does not say that the storage is full"
    sed -n '1p;$p' "$work/failed.txt"
    rm "$work/small/fill"
    mount -o remount,size=$((bytes + (64 << 20))) "$work/small"
    "$cellbench" fleet resume "$work/full.toml" >/dev/null
    "$cellbench" fleet status --follow "$work/full.toml" | tail -n 1
    ln -sfn ../small/full "$work/shared/full"
    check_collected full
    umount "$work/small"
}

# Whether kernels run here in virtual machines at the speed of the processors.
has_kvm() {
    [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo
}

# refused_in_task IMAGE PROGRAM: a task that is to time an emulated kernel ends, and says why.
refused_in_task() {
    cat >"$work/timed.toml" <<EOF
name = "timed"
directory = "shared"

[[kernel]]
name = "timed"
unfit = true
vm = "$1"
program = "$2"
rounds = 3
EOF
    "$cellbench" fleet submit "$work/timed.toml" >/dev/null || fail "submit of an emulated kernel"
    if "$cellbench" fleet status --follow "$work/timed.toml" >"$work/status.txt"; then
        fail "an emulated kernel was timed"
    fi
    grep -m 1 'timed: .*exit status 2: .*/dev/kvm' "$work/status.txt" || fail "$(cat "$work/status.txt")"
}

# Kernels as tasks: the node's own; two in virtual machines, interleaved; and two that a site boots, in
# turns. The site's command of this check boots nothing: it notes which kernel it was asked for.
kernels() {
    local program image instructions='' rounds host
    program=$(dirname "$cellbench")/kernelproof
    if ! "$cellbench" kernel --list --json | grep -q '"built": *true'; then
        printf '  kernels: NOT SHOWN, %s is built without --features kernel\n' "$cellbench"
        return 0
    fi
    [ -x "$program" ] || fail "no $program"
    image=${KERNEL_IMAGE:-${CARGO_TARGET_DIR:-target}/kernel-vm/linux-image-cloud-amd64-sid.vmlinuz}
    if [ ! -s "$image" ]; then
        mkdir -p "$(dirname "$image")"
        kernel/vm/fetch-image.sh linux-image-cloud-amd64 sid "$(dirname "$image")" "$image"
    fi
    image=$(realpath "$image")
    # Without KVM the machines are emulated: a task refuses to time them, and counts if it is told to.
    if ! has_kvm; then
        refused_in_task "$image" "$program"
        instructions='instructions = true'
    fi
    printf '#!/bin/bash\necho "$1" >>"%s"\nshift\nexec "$@"\n' "$work/booted" >"$work/boot"
    chmod +x "$work/boot"
    cat >"$work/kernels.toml" <<EOF
name = "kernels"
directory = "shared"

[[kernel]]
name = "own"
unfit = true
workloads = ["timer-start", "timer-cancel"]
threads = [1]
window = "2ms"
rounds = 3

[[kernel]]
name = "pair"
unfit = true
vm = "$image"
against = "$(realpath "${KERNEL_BEFORE:-$image}")"
program = "$program"
$instructions
workloads = ["timer-start"]
threads = [1]
window = "2ms"
rounds = 10

[[kernel]]
name = "booted"
unfit = true
boot = "boot"
kernels = ["old", "new"]
turns = 2
workloads = ["timer-start"]
threads = [1]
window = "2ms"
rounds = 3
EOF
    "$cellbench" fleet submit "$work/kernels.toml" | grep '^job'
    "$cellbench" fleet status --follow "$work/kernels.toml" >"$work/status.txt" ||
        fail "kernels: $(cat "$work/status.txt")"
    [ "$(tr '\n' ' ' <"$work/booted")" = "old new new old " ] ||
        fail "kernels were booted in the order $(tr '\n' ' ' <"$work/booted")"
    "$cellbench" fleet collect "$work/kernels.toml" >"$work/report.txt" 2>"$work/notes.txt" ||
        fail "collect of kernels: $(cat "$work/notes.txt")"
    rounds=$(cat "$work"/shared/kernels/kernels/*/rounds.jsonl)
    for host in own old new; do
        grep -q "\"host\":\"$host\"" <<<"$rounds" || fail "no rounds of $host"
    done
    # Two kernels of the pair, each with all ten rounds of each row.
    rounds=$(sed -E 's/.*"workload":"([^"]*)".*"cell":"([^"]*)".*/\2 \1/' \
        "$work"/shared/kernels/tasks/0001/*/latest/rounds.jsonl | sort | uniq -c)
    [ "$(awk '{ print $2 }' <<<"$rounds" | sort -u | wc -l)" = 2 ] &&
        [ "$(awk '{ print $1 }' <<<"$rounds" | sort -u)" = 10 ] ||
        fail "the pair is not two kernels with ten rounds of each row: $rounds"
    cat "$work/report.txt"
}

# Slurm's commands with a trap: the call whose number stands in KILL_AT, as 7-before or 7-after, kills
# the client that made it, before or after Slurm has had its say.
set_traps() {
    local tool real
    mkdir -p "$work/traps"
    for tool in sinfo squeue sbatch; do
        real=$(command -v $tool)
        cat >"$work/traps/$tool" <<EOF
#!/bin/bash
echo >>"\$CALLS"
number=\$(wc -l <"\$CALLS")
[ "\$KILL_AT" != "\$number-before" ] || { kill -9 \$PPID; exit 1; }
"$real" "\$@"
status=\$?
[ "\$KILL_AT" != "\$number-after" ] || kill -9 \$PPID
exit \$status
EOF
        chmod +x "$work/traps/$tool"
    done
}

# Submits with the traps, killed at none, and finds how many calls of Slurm a submission has and how
# long it takes.
calls=0 submission_ms=0
measure_submission() {
    local from
    plan trial
    from=$(date +%s%3N)
    CALLS=$work/calls KILL_AT=none PATH=$work/traps:$PATH \
        "$cellbench" fleet submit "$work/trial.toml" >/dev/null || fail "submit"
    submission_ms=$(($(date +%s%3N) - from))
    calls=$(wc -l <"$work/calls")
    "$cellbench" fleet status --follow "$work/trial.toml" >/dev/null || fail "a run without a kill"
    printf 'a submission: %d ms, %d calls of Slurm\n' "$submission_ms" "$calls"
    rm -rf "$work/shared/trial"
}

# Kills the client in mid-submission: every other time at one of its calls, else at any time at all.
submit_and_kill_client() {
    local client at=none
    : >"$work/calls"
    if [ $((RANDOM % 2)) = 0 ]; then
        local sides=(before after)
        at=$((RANDOM % calls + 1))-${sides[$((RANDOM % 2))]}
    fi
    CALLS=$work/calls KILL_AT=$at PATH=$work/traps:$PATH \
        "$cellbench" fleet submit "$work/$1.toml" >/dev/null 2>&1 &
    client=$!
    if [ $at = none ]; then
        at=$((RANDOM % submission_ms))
        sleep "$((at / 1000)).$(printf %03d $((at % 1000)))"
        kill -9 $client 2>/dev/null || :
        at="after $at ms"
    else
        at="at call $at"
    fi
    wait $client 2>/dev/null || :
    moment="$at, $(wc -l <"$work/calls") calls made"
}

# Kills one of the three at a random moment of a submission that is under way.
kill_once() {
    local name=$1 what=$2 pid tries moment=
    plan "$name"
    [ "$what" = client ] || "$cellbench" fleet submit "$work/$name.toml" >/dev/null || fail "submit"
    case $what in
    client) submit_and_kill_client "$name" ;;
    slurmd)
        sleep "$((RANDOM % 6)).$((RANDOM % 10))"
        kill -9 "$(cat "$SLURM_ONE_NODE/slurmd.pid")"
        sleep "$((RANDOM % 4)).$((RANDOM % 10))"
        scripts/slurm-one-node.sh node "$SLURM_ONE_NODE"
        ;;
    task)
        sleep "$((RANDOM % 6)).$((RANDOM % 10))"
        # Whatever runs below this fleet's directory: the task or the measurement in it.
        pid=$(pgrep -f "$work/shared/$name/bin/cellbench" | shuf -n 1) || :
        [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || :
        ;;
    esac
    # The client's death may have left anything; then the node's. Resume until all is there.
    for tries in 1 2 3 4 5; do
        "$cellbench" fleet resume "$work/$name.toml" >/dev/null 2>"$work/error.txt" ||
            fail "resume: $(cat "$work/error.txt")"
        if "$cellbench" fleet status --follow "$work/$name.toml" >"$work/status.txt"; then
            break
        fi
    done
    tail -n 1 "$work/status.txt" | grep -q '^20 of 20' || fail "$name: $(cat "$work/status.txt")"
    check_collected "$name"
    printf '%-8s killed %-7s complete after resume %d, attempts %d%s\n' "$name" "$what" "$tries" \
        "$(find "$work/shared/$name/tasks" -mindepth 2 -maxdepth 2 -type d | wc -l)" "${moment:+, $moment}"
    rm -rf "$work/shared/$name"
}

case ${1:-} in
--kill)
    RANDOM=${SEED:-$$}
    set_traps
    measure_submission
    expect_whole_runs
    for number in $(seq "${2:-20}"); do
        kinds=(client slurmd task)
        kill_once "kill$number" "${kinds[$((RANDOM % 3))]}"
    done
    ;;
--short) show ;;
'')
    show
    full_storage
    printf '== kernels\n'
    kernels
    ;;
*)
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"
    exit 2
    ;;
esac
printf 'fleet-check: passed\n'
