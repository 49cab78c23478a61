// SPDX-License-Identifier: MIT OR Apache-2.0
/* bpf_res_spin_lock: fails instead of deadlocking. The critical section is one increment. */
#include "cell.h"

struct value {
	struct bpf_res_spin_lock lock;
	__u32 inside;
#if CELL_STRIDE > 8
	__u8 pad[CELL_STRIDE - 8];
#endif
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct value);
} cells SEC(".maps");

ADDRESSES()
ENTRIES()

extern int bpf_res_spin_lock(struct bpf_res_spin_lock *lock) __weak __ksym;
extern void bpf_res_spin_unlock(struct bpf_res_spin_lock *lock) __weak __ksym;
extern int bpf_res_spin_lock_irqsave(struct bpf_res_spin_lock *lock,
				     unsigned long *flags__irq_flag) __weak __ksym;
extern void bpf_res_spin_unlock_irqrestore(struct bpf_res_spin_lock *lock,
					   unsigned long *flags__irq_flag) __weak __ksym;
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __weak __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __weak __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __weak __ksym;

static __always_inline long pair(struct value *v)
{
	long ret = bpf_res_spin_lock(&v->lock);

	if (ret)
		return ret;
	v->inside++;
	bpf_res_spin_unlock(&v->lock);
	return 0;
}

static __always_inline long pair_irqsave(struct value *v)
{
	unsigned long flags;
	long ret = bpf_res_spin_lock_irqsave(&v->lock, &flags);

	if (ret)
		return ret;
	v->inside++;
	bpf_res_spin_unlock_irqrestore(&v->lock, &flags);
	return 0;
}

/* Takes `first`, then `second`; returns what the second acquisition returned. */
static __always_inline long pair_of_two(struct value *first, struct value *second)
{
	long ret = bpf_res_spin_lock(&first->lock);

	if (ret)
		return ret;
	ret = bpf_res_spin_lock(&second->lock);
	if (ret) {
		bpf_res_spin_unlock(&first->lock);
		return ret;
	}
	first->inside++;
	bpf_res_spin_unlock(&second->lock);
	bpf_res_spin_unlock(&first->lock);
	return 0;
}

ROW_ANY_CONTEXT(empty_row, {
	ATTEMPT(r, OP_EMPTY, 0);
})
ROW_ANY_CONTEXT(lock_pair, {
	ATTEMPT(r, OP_LOCK, pair(v));
})
ROW(lock_pair_irqsave, {
	ATTEMPT(r, OP_LOCK, pair_irqsave(v));
})
/* The lock it already holds: every attempt ends in EDEADLK. */
ROW(lock_aa, {
	struct value *same = bpf_map_lookup_elem(&cells, &r->cell);

	if (!same)
		return 1;
	ATTEMPT(r, OP_LOCK, pair_of_two(v, same));
})
/* Even threads take cell 0 then 1, odd threads 1 then 0: a cycle that only failing resolves. */
ROW(lock_abba, {
	__u32 mine = r->thread & 1;
	__u32 other = !mine;
	struct value *first = bpf_map_lookup_elem(&cells, &mine);
	struct value *second = bpf_map_lookup_elem(&cells, &other);

	if (!first || !second)
		return 1;
	ATTEMPT(r, OP_LOCK, pair_of_two(first, second));
})

/*
 * Holds the lock for args.flags times 8 million iterations, so that a waiter runs into its timeout.
 * While a resilient lock is held only the number iterator may be called.
 */
SEC("syscall") int hold(struct args *a)
{
	__u32 zero = 0, rounds = a->flags;
	struct value *v = bpf_map_lookup_elem(&cells, &zero);
	struct bpf_iter_num outer, inner;
	__u64 started_ns = bpf_ktime_get_ns();

	if (!v || rounds > 4096)
		return 1;
	if (bpf_res_spin_lock(&v->lock))
		return 1;
	v->inside = ~0U;
	bpf_iter_num_new(&outer, 0, rounds);
	while (bpf_iter_num_next(&outer)) {
		bpf_iter_num_new(&inner, 0, 8 << 20);
		while (bpf_iter_num_next(&inner))
			;
		bpf_iter_num_destroy(&inner);
	}
	bpf_iter_num_destroy(&outer);
	v->inside = 0;
	bpf_res_spin_unlock(&v->lock);
	a->elapsed_ns = bpf_ktime_get_ns() - started_ns;
	return 0;
}
