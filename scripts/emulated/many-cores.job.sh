# Runs in the guest of many-cores.sh: busybox's shell, /bin/cellbench. The number of CPUs comes with the
# kernel's command line. No check asks how fast anything is but for the budgets, which are generous: the
# virtual CPUs wait for those of the host.
given() { tr ' ' '\n' </proc/cmdline | sed -n "s/^cellbench.$1=//p"; }
cpus=$(given cpus)
emulated=$(given emulated)
hole=5
isolated=$((cpus - 4))
echo 0 >/sys/devices/system/cpu/cpu$hole/online
usable=$((cpus - 1 - 4))
# For the runs on all CPUs. A tenth of it may go into distances between pairs. Emulated on a busy host, a round of
# 195 threads took minutes.
budget=$((100 + 9 * cpus))s
began=$(now)
# section NAME: says what comes, and when.
section() { echo "== $1 ($(($(now) - began)) s)"; }
echo "$cpus CPUs, CPU $hole offline, CPUs $isolated-$((cpus - 1)) isolated"
echo "CPUs of the nodes: $(cat /sys/devices/system/node/node*/cpulist | tr '\n' ' ')"
grep -H MemTotal /sys/devices/system/node/node*/meminfo | sed 's/.*Node/Node/'

# Without charges, whose calibration takes time.
pair="--cells spin-queued,cmpxchg-state --kinds timer --workloads same-cell-retry --window 3ms --no-charges"

# between_pairs: returns when the topology in running has measured pairs for some seconds, or has ended. With
# 200 CPUs on one of the host's it takes minutes to begin.
between_pairs() {
    for _ in $(seq 600); do
        ! grep -q 'pairs of CPUs' /tmp/errors || break
        kill -0 $running 2>/dev/null || break
        sleep 1
    done
}

# The parts, in functions of one name each.
about_topology() {
    section topology
    # order PLACEMENT N: CPUs in the order of the placement.
    order() { cellbench topology --no-latency --placement "$1" --threads "$2" | sed -n "s/^$1 order: //p"; }
    bounded 120 cellbench topology --no-latency
    check "packages and nodes" says '^2 packages, .* 4 NUMA nodes' /tmp/said
    check "the hole" says "^offline: $hole\$" /tmp/said
    check "isolated CPUs are not used unasked" says "^usable: 0-4,6-$((isolated - 1))\$" /tmp/said
    check "compact: cores of one package, first siblings" is "$(order compact 8)" "0 2 4 6 8 10 12 14"
    check "smt: whole cores alone, not the one with a hole" is "$(order smt 6)" "0 1 2 3 6 7"
    # A node for each of the first four, packages in turn; the CPUs of a node are consecutive.
    places=$(for cpu in $(order spread 4); do printf '%d ' $((cpu * 4 / cpus)); done)
    check "spread: nodes of packages in turn" one_of "$places" "0 2 1 3 " "0 2 3 1 "
    check "as many as are usable" is "$(order compact $usable | wc -w)" $usable
    bounded 120 cellbench topology --no-latency --threads $((usable + 1))
    check "one more is refused in one line" is "$status $(wc -l </tmp/errors)" "2 1"

    section doctor
    bounded 300 cellbench doctor --watch 2s
    cp /tmp/said /out/doctor.txt
    if [ "$emulated" = 1 ]; then
        check "unfit: the times are an emulator's" is $status 4
        check "and says so" says 'emulated (QEMU TCG)' /tmp/said
    else
        check "ends" one_of $status 0 3 4
        check "says that it is a guest" says 'virtual machine' /tmp/said
    fi
}

about_runs() {
    section "eight numbers of threads"
    threads=1,2,4,8,16,24,$((usable / 2)),$usable
    # shellcheck disable=SC2086 # words
    cellbench run $pair --threads $threads --rounds 1 --time-budget $budget --out /tmp/eight \
        >/tmp/said 2>/tmp/errors &
    running=$!
    # Every worker is pinned to one CPU of its own, and in the end each usable CPU had one.
    : >/tmp/pinned
    : >/tmp/twice
    while kill -0 $running 2>/dev/null; do
        grep -h '^Cpus_allowed_list' /proc/$running/task/*/status 2>/dev/null |
            sed 's/.*[[:space:]]//' | grep -x '[0-9]*' | sort -n >/tmp/now
        uniq -d /tmp/now >>/tmp/twice
        sort -n -u /tmp/now /tmp/pinned >/tmp/both && mv /tmp/both /tmp/pinned
        grep -E '^Vm(HWM|Peak)' /proc/$running/status >/tmp/memory.now 2>/dev/null &&
            [ -s /tmp/memory.now ] && cp /tmp/memory.now /tmp/memory
        usleep $((cpus * 4000))
    done
    wait $running
    status=$?
    check "ends" one_of $status 0 3
    check "no panic" never_panics
    check "each usable CPU had its worker" is "$(wc -l </tmp/pinned)" $usable
    check "and never two" is "$(wc -l </tmp/twice)" 0
    run=/tmp/eight/latest
    check "eight numbers of threads in the record" is \
        "$(grep -o '"threads":[0-9]*' $run/rounds.jsonl | sort -u | wc -l)" 8
    check "and every usable CPU" is "$(grep -o '"cpu":[0-9]*' $run/rounds.jsonl | sort -u | wc -l)" $usable
    check "the page is there" test -s $run/report/index.html
    counts() { for count in $(echo $threads | tr , ' '); do grep -q "\b$count threads\?" "$1" || echo "$count"; done; }
    check "and the tables of all of them" is "$(counts $run/report/RESULTS.md | tr '\n' ' ')" ""
    mkdir -p /out/eight
    cp -r $run/report $run/run.json $run/rounds.jsonl /out/eight/
    echo "        memory: $(tr -d '\n' </tmp/memory | tr -s '\t ' ' ')"

    section "placements spread and smt"
    # shellcheck disable=SC2086
    bounded 900 cellbench run $pair --threads 4,$usable --placement spread --rounds 1 --time-budget $budget --out /tmp/spread
    check "spread on all CPUs" one_of $status 0 3
    # shellcheck disable=SC2086
    bounded 900 cellbench run $pair --threads 2,$((usable - 1)) --placement smt --rounds 1 --time-budget $budget --out /tmp/smt
    check "smt on all whole cores" one_of $status 0 3
    bounded 60 grep -h -o '"placement":"[a-z]*"' /tmp/spread/latest/rounds.jsonl /tmp/smt/latest/rounds.jsonl
    check "both in the record" is "$(sort -u /tmp/said | wc -l)" 2

    section "topology with latencies, of 4 CPUs, and of all until interrupted"
    bounded 300 cellbench topology --threads 4
    check "four CPUs" is $status 0
    cellbench topology --json >/out/topology.json 2>/tmp/errors &
    running=$!
    between_pairs
    # Not SIGINT, which a shell has what it starts in the background ignore.
    kill -TERM $running 2>/dev/null
    wait $running
    check "interrupted, or all before that" one_of $? 130 0
    check "keeps what it had" says '"core_to_core"' /out/topology.json
    check "shows progress" says 'pairs of CPUs' /tmp/errors

    section "run --quick"
    bounded 1200 cellbench run --quick --time-budget 60s --out /tmp/quick
    echo "        took $took s with a budget of 60 s for measuring"
    cp /tmp/said /out/quick.txt
    cp /tmp/errors /out/quick-errors.txt
    check "ends: measured, or everything disturbed" one_of $status 0 3
    # What one block takes beyond it cannot be known before it was measured once; reports come on top.
    check "keeps to its budget" at_most $took 300
    check "no panic" never_panics
    check "measured" test -s /tmp/quick/latest/rounds.jsonl
    bounded 300 cellbench report /tmp/quick/latest
    check "report again" one_of $status 0 3

    section stress
    bounded 600 cellbench stress --seconds 30 --slice 2s --threads $usable --cells spin-queued,cmpxchg-state \
        --workloads same-cell --kinds timer
    tail -n 3 /tmp/said
    check "finds nothing wrong" one_of $status 0 3
    check "ends" at_most $took 400
    check "no panic" never_panics
}

# begin DIR WORD...: starts a run on all that it may use, below DIR, WORD before its command; returns when
# some of it is recorded, with its process in running.
begin() {
    local out=$1
    shift
    # shellcheck disable=SC2086
    "$@" cellbench run $pair --threads "$on" --rounds 100000 --time-budget $budget --out "$out" \
        >/tmp/said 2>/tmp/errors &
    running=$!
    while kill -0 $running 2>/dev/null; do
        # shellcheck disable=SC2012
        [ "$(cat "$out"/2*/rounds.jsonl 2>/dev/null | wc -l)" -lt 2 ] || break
        usleep 200000
    done
}
# ended: waits for its end; sets status, and took since then.
ended() {
    local from
    from=$(now)
    wait $running
    status=$?
    took=$(($(now) - from))
    tail -n 1 /tmp/errors | sed 's/^/        /'
}
# kept DIR: what it had measured can be reported.
kept() {
    bounded 300 cellbench report "$(ls -d "$1"/2*)"
    check "what was measured is reported" one_of $status 0 3
    check "as that of a run that did not finish" says 'The run did not finish' /tmp/said
}
one_error() { is "$(grep -c 'cellbench: error: ' /tmp/errors) $(tail -n 1 /tmp/errors | grep -c "$1")" "1 1"; }

about_faults() {
    section "a cpuset shrinks in mid-run"
    echo +cpuset +memory >/sys/fs/cgroup/cgroup.subtree_control
    mkdir /sys/fs/cgroup/small /sys/fs/cgroup/poor
    echo 0-15 >/sys/fs/cgroup/small/cpuset.cpus
    cat >/bin/within <<'END'
#!/bin/sh
echo $$ >/sys/fs/cgroup/$1/cgroup.procs
shift
exec "$@"
END
    chmod +x /bin/within
    # CPUs 0, 2 ... 10 of 0-15.
    on=6
    begin /tmp/shrunk within small
    echo 0-7 >/sys/fs/cgroup/small/cpuset.cpus
    ended
    check "ends by an error" is $status 2
    check "soon" at_most $took 120
    check "in one line that names the cpuset" one_error 'cpuset'
    kept /tmp/shrunk

    section "memory runs out"
    on=4
    begin /tmp/poor within poor
    echo 1M >/sys/fs/cgroup/poor/memory.max
    ended
    check "the kernel kills it" is $status 137
    kept /tmp/poor
    # The command and what it has on few CPUs fit, and half of the threads' stacks.
    limit_kb=$(($(wc -c </bin/cellbench) / 1024 + 40000 + usable * 1024))
    # shellcheck disable=SC2086
    bounded 600 sh -c "ulimit -v $limit_kb; exec cellbench run $pair --threads $usable --rounds 1 \
        --time-budget 60s --out /tmp/narrow"
    tail -n 1 /tmp/errors | sed 's/^/        /'
    check "no address space: an error" is $status 2
    check "in one line that names the limit" one_error 'ulimit -v'

    about_unplugging
}

about_unplugging() {
    section "a CPU goes away in mid-run"
    on=$usable
    begin /tmp/unplugged
    echo 0 >/sys/devices/system/cpu/cpu8/online
    ended
    check "ends by an error" is $status 2
    check "soon" at_most $took 120
    check "in one line that names the CPU" one_error 'CPU 8[^0-9]'
    check "and the place of what was measured" says 'cellbench report /tmp/unplugged/2' /tmp/errors
    kept /tmp/unplugged
    # So few that a pair with the CPU is never more than 24 away, so many that real CPUs take seconds for all.
    cellbench topology --threads 24 --json >/tmp/said 2>/tmp/errors &
    running=$!
    between_pairs
    check "topology measures" kill -0 $running
    echo 0 >/sys/devices/system/cpu/cpu10/online
    ended
    check "topology ends by an error" is $status 2
    check "in one line that names the CPU" one_error 'CPU 10[^0-9]'
    check "soon" at_most $took 120
}

case $(given part) in
whole) about_topology; about_runs; about_faults ;;
topology) about_topology ;;
runs) about_runs ;;
faults) about_faults ;;
unplug) about_unplugging ;;
esac
section end
echo "$failed failed"
[ $failed = 0 ]
