# Runs in the guest of arm.sh: busybox's shell, /bin/cellbench for aarch64, a processor with PMUv3 whose
# cycles and instructions are counted.
mkdir -p /etc
echo 'root:x:0:0::/tmp:/bin/sh' >/etc/passwd
echo 'user:x:1000:1000::/tmp:/bin/sh' >>/etc/passwd
chmod 1777 /out /tmp
# counted RUN EVENT: rounds of a run that have a count of the event.
counted() { grep -c "\"$2\":{\"value\":[1-9]" "$1/rounds.jsonl"; }

echo "== doctor"
bounded 600 cellbench doctor --watch 1s
check "unfit: the times are an emulator's" is $status 4
check "and says so" says 'emulated (QEMU TCG)' /tmp/said
cat /tmp/said

echo "== the main job in its short form, with counters"
echo 2 >/proc/sys/kernel/perf_event_paranoid
bounded 3000 cellbench run --quick --time-budget 60s --out /tmp/quick
tail -n 30 /tmp/said
tail -n 3 /tmp/errors
check "ends" one_of $status 0 3
check "no panic" never_panics
rounds=$(wc -l </tmp/quick/latest/rounds.jsonl)
check "rounds were measured" test "$rounds" -gt 0
check "every round has instructions" is "$(counted /tmp/quick/latest instructions)" "$rounds"
check "and cycles" is "$(counted /tmp/quick/latest cycles)" "$rounds"
check "the report has instructions for each operation" says 'instructions' /tmp/quick/latest/report/RESULTS.md
check "and says that the host is emulated" says 'emulated' /tmp/quick/latest/report/RESULTS.md
check "the mail says it" says 'emulated' /tmp/quick/latest/report/mail.txt

echo "== counters denied"
# Above 2, Debian's kernel lets users count nothing; others know 2 as the highest.
echo 4 >/proc/sys/kernel/perf_event_paranoid
bounded 1200 su user -c 'cellbench run --cells spin-queued --kinds timer --workloads solo-set --threads 1 \
    --rounds 2 --window 5ms --time-budget 20s --out /tmp/denied'
check "measures all the same" one_of $status 0 3
check "no counts" is "$(counted /tmp/denied/latest instructions)" 0
check "the reason is in the record" says 'perf_event_paranoid' /tmp/denied/latest/rounds.jsonl

echo "== more counts than counters, and the other questions about a live host"
bounded 1200 live --nocapture --test-threads 1
grep -A 3 'panicked at' /tmp/said /tmp/errors
check "the tests of a live host pass" is $status 0
grep 'took turns' /tmp/said
check "counters took turns" says '[1-9][0-9]* of 40 counts of instructions took turns' /tmp/said

echo "== counters in Criterion"
bounded 600 measurement --nocapture --test-threads 1
grep -E 'instructions for|not counted' /tmp/said
check "the tests of its measurement pass" is $status 0
check "a benchmark by its instructions" says '[0-9] instructions for 1000 steps' /tmp/said
check "and its report in events" says 'loop  *time:.*events (instructions)' /tmp/said
bounded 900 ops --bench --quick 'solo-set/timer/(cmpxchg-state|spin-queued)$'
tail -n 8 /tmp/said
check "a benchmark of cells ends" is $status 0
check "with a time for each" is "$(grep -c 'time:' /tmp/said)" 2

echo "== Arm's own paths"
bounded 1200 cellbench stress --seconds 20 --threads 2 --workloads same-cell,churn --kinds timer
check "stress finds nothing wrong" one_of $status 0 3
check "no panic" never_panics
echo "$failed failed"
[ $failed = 0 ]
