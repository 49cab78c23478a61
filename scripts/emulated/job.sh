# What the jobs in guests have in common; comes before each of them in /job. Busybox's shell.
failed=0
# check NAME COMMAND...: says whether the command is right.
check() {
    local name=$1
    shift
    if "$@"; then
        echo "ok      $name"
    else
        echo "FAILED  $name"
        failed=$((failed + 1))
    fi
}
now() { cut -d' ' -f1 /proc/uptime | cut -d. -f1; }

# bounded SECONDS COMMAND...: runs it, sets status, took (seconds), and leaves what it said in /tmp/said
# and /tmp/errors. A command that is still there after SECONDS is killed: status 137.
bounded() {
    local limit=$1 from
    shift
    from=$(now)
    timeout -s KILL "$limit" "$@" >/tmp/said 2>/tmp/errors
    status=$?
    took=$(($(now) - from))
}
is() { [ "$1" = "$2" ] || { echo "        $1, not $2"; return 1; }; }
at_most() { [ "$1" -le "$2" ] || { echo "        $1, more than $2"; return 1; }; }
one_of() {
    local found=$1 allowed
    shift
    for allowed in "$@"; do
        [ "$found" != "$allowed" ] || return 0
    done
    echo "        $found, none of $*"
    tail -n 3 /tmp/errors | sed 's/^/        /'
    return 1
}
says() { grep -q -- "$1" "$2" || { echo "        no \`$1\` in:"; tail -n 3 "$2" | sed 's/^/        /'; return 1; }; }
never_panics() { ! grep -q 'panicked at' /tmp/errors /tmp/said; }
