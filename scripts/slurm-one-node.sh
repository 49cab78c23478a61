#!/usr/bin/env bash
# A real Slurm of one node, this host, reachable over loopback alone: to try `cellbench fleet`, and
# for CI. Everything it writes lies below one directory. Needs slurm-wlm and munge; installs them
# where they are missing and the caller is root on Debian or Ubuntu.
#
#   scripts/slurm-one-node.sh run COMMAND...   start, run COMMAND with it, stop whatever happens
#   scripts/slurm-one-node.sh install          install what is missing, no more
#   scripts/slurm-one-node.sh start [DIR]      start; prints DIR and the line to paste into a shell
#   scripts/slurm-one-node.sh node DIR         start slurmd again, after it was killed
#   scripts/slurm-one-node.sh stop DIR         stop; removes DIR if `start` made it
set -euo pipefail

# Debian puts the daemons where users have no path.
export PATH=$PATH:/usr/sbin:/sbin

fail() {
    printf 'slurm-one-node: %s\n' "$*" >&2
    exit 2
}

install_missing() {
    local tool missing=
    for tool in slurmctld slurmd sbatch munged; do
        command -v $tool >/dev/null || missing="$missing $tool"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "missing:$missing; install slurm-wlm and munge"
    fi
    # What the packages would start as system services is none of ours.
    { apt-get update && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y \
        --no-install-recommends slurm-wlm munge; } >/tmp/slurm-install.$$ 2>&1 ||
        fail "cannot install slurm-wlm and munge: $(tail -n 1 /tmp/slurm-install.$$)"
    rm -f /tmp/slurm-install.$$
}

# A TCP port on which nothing listens.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null || break
    done
    echo $port
}

# Waits until a command succeeds: at most 30 s.
await() {
    local what=$1 tries
    shift
    for tries in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    fail "$what does not come up; its log is in $dir/log"
}

configure() {
    local hardware user ports node
    user=$(id -un)
    node=$(hostname -s)
    hardware=$(slurmd -C | tr ' ' '\n' | grep -E '^(CPUs|Boards|SocketsPerBoard|CoresPerSocket|ThreadsPerCore|RealMemory)=' | tr '\n' ' ')
    ports=$(free_port)
    mkdir -p "$dir/munge" "$dir/state" "$dir/spool" "$dir/log"
    chmod 755 "$dir"
    chmod 700 "$dir/munge"
    (umask 077 && head -c 1024 /dev/urandom >"$dir/munge/key")
    # Clients find the socket in a directory that all may enter.
    mkdir -p "$dir/socket"
    chmod 755 "$dir/socket"
    cat >"$dir/slurm.conf" <<EOF
ClusterName=cellbench
SlurmctldHost=$node(127.0.0.1)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort=$ports
SlurmdPort=$(free_port)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/socket/munge
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,bf_interval=5
ReturnToService=2
SlurmdTimeout=30
KillWait=5
MinJobAge=3600
NodeName=$node NodeAddr=127.0.0.1 $hardware Features=here State=UNKNOWN
PartitionName=one Nodes=$node Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
EOF
    printf 'CgroupAutomount=no\n' >"$dir/cgroup.conf"
}

start_daemons() {
    munged --force --socket="$dir/socket/munge" --key-file="$dir/munge/key" \
        --pid-file="$dir/munge/pid" --log-file="$dir/log/munged.log" \
        --seed-file="$dir/munge/seed" >"$dir/log/munged.out" 2>&1 ||
        fail "munged does not start: $(tail -n 1 "$dir/log/munged.out")"
    slurmctld -c >"$dir/log/slurmctld.out" 2>&1 ||
        fail "slurmctld does not start: $(tail -n 1 "$dir/log/slurmctld.out")"
    await slurmctld scontrol ping
    start_node
}

start_node() {
    slurmd -N "$(hostname -s)" >"$dir/log/slurmd.out" 2>&1 ||
        slurmd >"$dir/log/slurmd.out" 2>&1 ||
        fail "slurmd does not start: $(tail -n 1 "$dir/log/slurmd.out")"
    await slurmd is_idle_or_busy
}

is_idle_or_busy() {
    sinfo --noheader --format=%t | grep -qE '^(idle|mix|alloc|comp)$'
}

# Ends the process whose id a file holds, and waits for it.
end() {
    local pid tries
    pid=$(cat "$1" 2>/dev/null) || return 0
    kill "$pid" 2>/dev/null || return 0
    for tries in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || :
}

stop() {
    # Jobs first: with them go the processes that work for them.
    scancel --user="$(id -un)" --full 2>/dev/null || :
    for _ in $(seq 100); do
        [ -n "$(squeue --noheader 2>/dev/null)" ] || break
        sleep 0.1
    done
    end "$dir/slurmd.pid"
    end "$dir/slurmctld.pid"
    end "$dir/munge/pid"
    if [ -e "$dir/made-by-start" ]; then
        rm -rf "$dir"
    fi
}

begin() {
    install_missing
    if [ $# -gt 0 ]; then
        mkdir -p "$1"
        dir=$(cd "$1" && pwd)
        [ ! -e "$dir/slurm.conf" ] || fail "$dir has a Slurm already; stop it first"
    else
        dir=$(mktemp -d "${TMPDIR:-/tmp}/slurm-one-node.XXXXXX")
        touch "$dir/made-by-start"
    fi
    export SLURM_CONF=$dir/slurm.conf
    configure
    start_daemons
}

of() {
    [ $# -gt 0 ] && [ -e "$1/slurm.conf" ] || fail "name the directory that start printed"
    dir=$(cd "$1" && pwd)
    export SLURM_CONF=$dir/slurm.conf
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
install)
    install_missing
    ;;
start)
    begin "$@"
    printf '%s\nexport SLURM_CONF=%s\n' "$dir" "$SLURM_CONF"
    ;;
node)
    of "$@"
    start_node
    # As an administrator would after a crash: what was on the node is given up.
    scontrol update NodeName="$(hostname -s)" State=DOWN Reason=restarted
    # The new slurmd may have brought the node back by itself; Slurm then refuses to resume it.
    scontrol update NodeName="$(hostname -s)" State=RESUME 2>/dev/null || :
    await slurmd is_idle_or_busy
    ;;
stop)
    of "$@"
    stop
    ;;
run)
    [ $# -gt 0 ] || fail "run what?"
    begin
    trap stop EXIT
    SLURM_ONE_NODE=$dir "$@"
    ;;
*)
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"
    exit 2
    ;;
esac
