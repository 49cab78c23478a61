/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What every measured program shares: the few kernel declarations it needs, the loop around an
 * operation, the accounting of outcomes and the latency histogram.
 *
 * A vmlinux.h would pin this code to one kernel. The types below are those whose layout is either
 * user-space ABI or, for the cells, a size that BTF field detection checks by name; kernel functions
 * are weak symbols that the loader resolves against the running kernel's BTF.
 *
 * The layout of the cells is chosen at build time: CELL_STRIDE is the distance of two cells in bytes.
 */
#ifndef CELLBENCH_CELL_H
#define CELLBENCH_CELL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef signed short __s16;
typedef signed int __s32;
typedef signed long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;
typedef _Bool bool;
enum { false, true };

#include <bpf/bpf_helpers.h>

/* User-space ABI numbers. */
enum { BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PERCPU_ARRAY = 6 };
enum { BPF_ANY = 0 };
enum { CLOCK_REALTIME = 0, CLOCK_MONOTONIC = 1 };

struct bpf_timer {
	__u64 opaque[2];
} __attribute__((aligned(8)));

struct bpf_wq {
	__u64 opaque[2];
} __attribute__((aligned(8)));

struct bpf_task_work {
	__u64 opaque;
} __attribute__((aligned(8)));

struct bpf_spin_lock {
	__u32 val;
};

struct bpf_res_spin_lock {
	__u32 val;
};

struct bpf_iter_num {
	__u64 opaque[1];
} __attribute__((aligned(8)));

/* What is read of a task; where it lies is the running kernel's affair. */
struct task_struct {
	unsigned int flags;
} __attribute__((preserve_access_index));

/* Only pointed to; complete, because the loader compares kinds and a forward is another kind. */
struct bpf_map {
	int unused;
};

/* Operations by the number under which their outcomes and latencies are kept. */
enum op {
	OP_EMPTY,
	OP_INIT,
	OP_SET_CALLBACK,
	OP_START,
	OP_CANCEL,
	OP_CANCEL_ASYNC,
	OP_UPDATE,
	OP_SCHEDULE,
	OP_LOCK,
	OP_CALLBACK,
	OP_DRAIN,
	NR_OPS,
};

enum {
	NR_ERRNOS = 128,     /* errno 0 stands for one beyond the table */
	NR_BUCKETS = 1024,
	SUB_BITS = 5,        /* 32 buckets per power of two: at most 3.2 % wide */
	NR_KEYS = 4096,
	DEADLINE_EVERY = 128,
	STOP_ROUNDS_MAX = 2 << 20, /* of a stop whose other call never begins */
	CELL_BITS = 24,      /* of a key: the cell; the rest is a random choice */
	ENTRY_STRIDE = 37,   /* from an entry's first key to the next one's; odd, see `first` */
};

/* In and out of a run. Every field is 64 bits, so that user space reads it as an array. */
struct args {
	__u64 attempts_max;  /* in: times round the loop */
	__u64 deadline_ns;   /* in: CLOCK_MONOTONIC after which the loop ends; 0 for none */
	__u64 thread;        /* in: number of the thread, its row in `failures` and `keys` */
	__u64 base;          /* in: first cell of the thread */
	__u64 mask;          /* in: cells of the thread minus one, a power of two minus one */
	__u64 use_keys;      /* in: take the cell from `keys` instead */
	__u64 sample_every;  /* in: every n-th time round is timed, a power of two; 0 for none */
	__u64 flags;         /* in: meaning depends on the program */
	__u64 started_ns;    /* out */
	__u64 ended_ns;      /* out */
	__u64 elapsed_ns;    /* in and out: added up */
	__u64 entries;       /* in and out: times the program was entered, added up */
	__u64 failed;        /* in and out: attempts with an errno, added up */
	__u64 ok[NR_OPS];    /* in and out: attempts that succeeded, added up */
};

struct failures {
	__u64 count[NR_OPS][NR_ERRNOS];
};

struct keys {
	__u32 key[NR_KEYS];
};

struct histogram {
	__u64 sum_ns;
	__u64 max_ns;
	__u64 bucket[NR_BUCKETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* set to the number of threads before loading */
	__type(key, __u32);
	__type(value, struct failures);
} failures SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* set to the number of threads before loading */
	__type(key, __u32);
	__type(value, struct keys);
} keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NR_OPS);
	__type(key, __u32);
	__type(value, struct histogram);
} latency SEC(".maps");

/* Callbacks that ran, by CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} callbacks SEC(".maps");

/* Arguments of the programs that a perf event or a timer enters, by thread. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* set to the number of threads before loading */
	__type(key, __u32);
	__type(value, struct args);
} interrupt_args SEC(".maps");

/* The timers whose callbacks enter the programs of rows in softirq, by thread. */
struct entry {
	struct bpf_timer timer;
	__u64 period_ns;     /* armed again for so long from each callback; 0 for once */
	__u64 process;       /* the one that armed it, whose threads alone are interrupted */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* set to the number of threads before loading */
	__type(key, __u32);
	__type(value, struct entry);
} entries SEC(".maps");

/* Where another CPU is stopped in the middle of an operation, and for how long. */
struct hold {
	__u64 armed;         /* in: stop at the next breakpoint */
	__u64 entered;       /* out: stopped */
	__u64 begun;         /* in: the other CPU begins its operation */
	__u64 over;          /* in: it has ended its own */
	__u64 left;          /* out: goes on */
	__u64 rounds;        /* in: longest stop from `begun` on, in rounds of the loop */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hold);
} stops SEC(".maps");

/* A run while it runs; on the stack, where counting costs an increment of a hot line. */
struct run {
	__u64 deadline_ns;
	__u32 thread;
	__u32 base;
	__u32 mask;
	__u32 use_keys;
	__u32 sample_every;
	__u32 cell;
	__u32 choice;
	__u32 timed;
	__u32 first;         /* number of the first time round: keys and timed attempts differ by entry */
	__u64 failed;
	__u64 ok[NR_OPS];
};

/* Number of the bucket: log-linear, exact below 64 ns. */
static __always_inline __u32 bucket_of(__u64 ns)
{
	__u64 rest = ns;
	__u32 msb = 0, shift, bucket;

	if (rest >> 32) { msb += 32; rest >>= 32; }
	if (rest >> 16) { msb += 16; rest >>= 16; }
	if (rest >> 8)  { msb += 8;  rest >>= 8; }
	if (rest >> 4)  { msb += 4;  rest >>= 4; }
	if (rest >> 2)  { msb += 2;  rest >>= 2; }
	if (rest >> 1)  { msb += 1; }
	if (msb < SUB_BITS)
		return ns;
	shift = msb - SUB_BITS;
	bucket = (shift << SUB_BITS) + (__u32)(ns >> (shift & 63));
	return bucket < NR_BUCKETS ? bucket : NR_BUCKETS - 1;
}

/* Global, as the next: so the verifier looks at them once, and not along each path to each call. */
__noinline int sample(__u32 op, __u64 ns)
{
	struct histogram *h = bpf_map_lookup_elem(&latency, &op);

	if (!h)
		return 0;
	h->sum_ns += ns;
	if (ns > h->max_ns)
		h->max_ns = ns;
	h->bucket[bucket_of(ns) & (NR_BUCKETS - 1)]++;
	return 0;
}

__noinline int count_failure(__u32 thread, __u32 op, __u32 errno_value)
{
	struct failures *f = bpf_map_lookup_elem(&failures, &thread);

	if (!f || op >= NR_OPS)
		return 0;
	if (errno_value >= NR_ERRNOS)
		errno_value = 0;
	f->count[op][errno_value & (NR_ERRNOS - 1)]++;
	return 0;
}

static __always_inline void account(struct run *r, __u32 op, long ret)
{
	if (ret >= 0) {
		r->ok[op]++;
		return;
	}
	r->failed++;
	count_failure(r->thread, op, -ret);
}

/* Makes one attempt of `op`, times it if it is this attempt's turn, and counts the outcome. */
#define ATTEMPT(r, op, call) ({							\
	__u64 before_ = (r)->timed ? bpf_ktime_get_ns() : 0;			\
	long ret_ = (call);							\
	if (before_)								\
		sample(op, bpf_ktime_get_ns() - before_);			\
	account(r, op, ret_);							\
	ret_;									\
})

static __always_inline void begin(struct run *r, const struct args *a)
{
	__builtin_memset(r, 0, sizeof(*r));
	r->deadline_ns = a->deadline_ns;
	r->thread = a->thread;
	r->base = a->base;
	r->mask = a->mask;
	r->use_keys = a->use_keys;
	r->sample_every = a->sample_every;
	r->first = a->entries * ENTRY_STRIDE;
}

/* Before each time round: false when the deadline has passed. Chooses the cell and whether to time. */
static __always_inline bool step(struct run *r, __u32 i)
{
	if ((i & (DEADLINE_EVERY - 1)) == DEADLINE_EVERY - 1 && r->deadline_ns &&
	    bpf_ktime_get_ns() >= r->deadline_ns)
		return false;
	r->timed = r->sample_every && !((i + r->first) & (r->sample_every - 1));
	if (r->use_keys) {
		struct keys *k = bpf_map_lookup_elem(&keys, &r->thread);
		__u32 key;

		if (!k)
			return false;
		key = k->key[(i + r->first) & (NR_KEYS - 1)];
		r->cell = key & ((1 << CELL_BITS) - 1);
		r->choice = key >> CELL_BITS;
	} else {
		r->cell = r->base + (i & r->mask);
	}
	return true;
}

static __always_inline void end(struct args *a, const struct run *r, __u64 started_ns)
{
	__u64 now = bpf_ktime_get_ns();

	a->started_ns = started_ns;
	a->ended_ns = now;
	a->elapsed_ns += now - started_ns;
	a->entries++;
	a->failed += r->failed;
#pragma unroll
	for (int op = 0; op < NR_OPS; op++)
		a->ok[op] += r->ok[op];
}

static __always_inline void count_callback(void)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&callbacks, &zero);

	if (count)
		__sync_fetch_and_add(count, 1);
}

#define RUN(args, loop) do {							\
	struct run r_;								\
	__u64 started_ns_;							\
	begin(&r_, args);							\
	started_ns_ = bpf_ktime_get_ns();					\
	bpf_loop((args)->attempts_max, loop, &r_, 0);				\
	end(args, &r_, started_ns_);						\
} while (0)

/*
 * A row: BODY sees `r`, the run, and `v`, the value that holds the cell. Entered from a system call
 * as `name`.
 */
#define ROW(name, BODY)								\
static long name##_loop(__u32 i, struct run *r)					\
{										\
	struct value *v;							\
	if (!step(r, i))							\
		return 1;							\
	v = bpf_map_lookup_elem(&cells, &r->cell);				\
	if (!v)									\
		return 1;							\
	BODY									\
	return 0;								\
}										\
SEC("syscall") int name(struct args *a)						\
{										\
	RUN(a, name##_loop);							\
	return 0;								\
}

#define PF_KTHREAD 0x00200000
#define ENTER_LATER_NS 50000

/*
 * Whether a kernel thread was interrupted: ksoftirqd, where softirqs are many, or the idle one. Rows are
 * then not entered. The kernel lets a program schedule task work on a kernel thread, which never comes to
 * user space: the work does not run, and the signal it is announced by keeps the thread from sleeping
 * until the next boot (seen on 6.18.44: ksoftirqd of each CPU at 100 %).
 */
static __always_inline int is_kernel_thread(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return task->flags & PF_KTHREAD;
}

/*
 * The same, entered also from a perf event as `irq_name`: hardirq or NMI, as the event delivers. As
 * `nmi_name` from the tracepoint in the kernel's NMI handler, for machines whose NMIs come from no
 * performance counter. And in softirq from the callback of a timer, which `soft_name` arms: after
 * args.flags nanoseconds once, after args.sample_every again and again if that is not 0. There only while
 * a thread of the caller's runs: task work would be scheduled on whoever was interrupted, and one that
 * sleeps in the kernel afterwards runs it much later.
 */
#define ROW_ANY_CONTEXT(name, BODY)						\
ROW(name, BODY)									\
SEC("raw_tp/nmi_handler") int nmi_##name(void *ctx)				\
{										\
	__u32 thread = 0;							\
	struct args *a = bpf_map_lookup_elem(&interrupt_args, &thread);		\
	if (!a || is_kernel_thread())						\
		return 0;							\
	RUN(a, name##_loop);							\
	return 0;								\
}										\
SEC("perf_event") int irq_##name(void *ctx)					\
{										\
	__u32 thread = bpf_get_attach_cookie(ctx);				\
	struct args *a = bpf_map_lookup_elem(&interrupt_args, &thread);		\
	if (!a)									\
		return 0;							\
	RUN(a, name##_loop);							\
	return 0;								\
}										\
static int name##_entered(void *map, int *key, struct entry *e)			\
{										\
	__u32 thread = *key;							\
	struct args *a = bpf_map_lookup_elem(&interrupt_args, &thread);		\
	if (!a)									\
		return 0;							\
	if (bpf_get_current_pid_tgid() >> 32 != e->process) {			\
		bpf_timer_start(&e->timer, ENTER_LATER_NS, 0);			\
		return 0;							\
	}									\
	RUN(a, name##_loop);							\
	if (e->period_ns)							\
		bpf_timer_start(&e->timer, e->period_ns, 0);			\
	return 0;								\
}										\
SEC("syscall") int soft_##name(struct args *a)					\
{										\
	__u32 thread = a->thread;						\
	struct entry *e = bpf_map_lookup_elem(&entries, &thread);		\
	if (!e)									\
		return 1;							\
	e->period_ns = a->sample_every;						\
	e->process = bpf_get_current_pid_tgid() >> 32;				\
	bpf_timer_init(&e->timer, &entries, CLOCK_MONOTONIC);			\
	if (bpf_timer_set_callback(&e->timer, name##_entered))			\
		return 2;							\
	return bpf_timer_start(&e->timer, a->flags, 0) ? 3 : 0;			\
}

/* Ends the timer of a thread and waits for its callback. For objects with rows of any context. */
#define ENTRIES()								\
SEC("syscall") int soft_end(struct args *a)					\
{										\
	__u32 thread = a->thread;						\
	struct entry *e = bpf_map_lookup_elem(&entries, &thread);		\
	if (!e)									\
		return 1;							\
	e->period_ns = 0;							\
	bpf_timer_cancel(&e->timer);						\
	return 0;								\
}

/* One round of a stop: 1 to go on. */
static long stopped(__u32 i, __u64 *since_begun)
{
	__u32 zero = 0;
	struct hold *h = bpf_map_lookup_elem(&stops, &zero);

	if (!h || *(volatile __u64 *)&h->over)
		return 1;
	if (*(volatile __u64 *)&h->begun)
		++*since_begun;
	return *since_begun > h->rounds;
}

/* Where a cell lies, and the first words of its value and of the object that the value points to. */
struct addresses {
	__u64 value;
	__u64 task;
	__u64 value_words[2];
	__u64 block_words[16];
};

/* Tells a trace which addresses belong to which object. After the definition of the map `cells`. */
#define ADDRESSES()								\
SEC("syscall") int addresses(struct addresses *a)				\
{										\
	__u32 zero = 0;								\
	struct value *v = bpf_map_lookup_elem(&cells, &zero);			\
	/* Helpers do not write to the context. */				\
	__u64 words[2] = {}, block[16] = {}, at = (__u64)v;			\
	if (!v)									\
		return 1;							\
	a->value = at;								\
	a->task = bpf_get_current_task();					\
	/* Through a copy: the words of a cell are the kernel's own. */		\
	bpf_probe_read_kernel(words, sizeof(words), (void *)at);		\
	bpf_probe_read_kernel(block, sizeof(block), (void *)words[0]);		\
	a->value_words[0] = words[0];						\
	a->value_words[1] = words[1];						\
	_Pragma("unroll") for (int i = 0; i < 16; i++)				\
		a->block_words[i] = block[i];					\
	return 0;								\
}

/*
 * Entered where a hardware breakpoint stands on this thread's way through the kernel: stops there until
 * the other CPU's operation is over, or, should that wait for this one, for a bounded time.
 */
SEC("perf_event") int stop(void *ctx)
{
	__u32 zero = 0;
	struct hold *h = bpf_map_lookup_elem(&stops, &zero);
	__u64 since_begun = 0;

	if (!h || !h->armed)
		return 0;
	h->armed = 0;
	*(volatile __u64 *)&h->entered = 1;
	bpf_loop(STOP_ROUNDS_MAX, stopped, &since_begun, 0);
	*(volatile __u64 *)&h->left = 1;
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#endif
