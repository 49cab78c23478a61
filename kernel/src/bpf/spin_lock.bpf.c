// SPDX-License-Identifier: MIT OR Apache-2.0
/* bpf_spin_lock: interrupts saved, never fails. The critical section is one increment. */
#include "cell.h"

struct value {
	struct bpf_spin_lock lock;
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

static __always_inline long pair(struct value *v)
{
	bpf_spin_lock(&v->lock);
	v->inside++;
	bpf_spin_unlock(&v->lock);
	return 0;
}

ROW(empty_row, {
	ATTEMPT(r, OP_EMPTY, 0);
})
ROW(lock_pair, {
	ATTEMPT(r, OP_LOCK, pair(v));
})
