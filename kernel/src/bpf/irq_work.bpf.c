// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * irq_work, on its own: draining a ring buffer that user space left empty does the same with either flag,
 * but for the irq_work that one of them queues. Its interrupt comes at once; its handler wakes whoever
 * waits for room in the ring, and nobody does.
 */
#include "cell.h"

enum { BPF_MAP_TYPE_USER_RINGBUF = 31 };
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2 };

struct value {
	__u64 unused;
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

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

struct bpf_dynptr;

/* Never called: there are no samples. */
static long ignore(struct bpf_dynptr *sample, void *context)
{
	return 1;
}

ROW(empty_row, {
	ATTEMPT(r, OP_EMPTY, 0);
})
ROW(drain, {
	ATTEMPT(r, OP_DRAIN, bpf_user_ringbuf_drain(&ring, ignore, 0, BPF_RB_NO_WAKEUP));
})
ROW(drain_and_queue, {
	ATTEMPT(r, OP_DRAIN, bpf_user_ringbuf_drain(&ring, ignore, 0, BPF_RB_FORCE_WAKEUP));
})
