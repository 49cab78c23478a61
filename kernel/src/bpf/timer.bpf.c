// SPDX-License-Identifier: MIT OR Apache-2.0
/* The operations of bpf_timer. */
#include "cell.h"

struct value {
	struct bpf_timer timer;
#if CELL_STRIDE > 16
	__u8 pad[CELL_STRIDE - 16];
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

extern int bpf_timer_cancel_async(struct bpf_timer *timer) __weak __ksym;

/* Far enough that no timer of a measurement ever fires. */
#define NEVER_NS (24ULL * 3600 * 1000000000)

static const struct value empty;

static int fired(void *map, int *key, struct value *v)
{
	count_callback();
	return 0;
}

#define INIT(r) ATTEMPT(r, OP_INIT, bpf_timer_init(&v->timer, &cells, CLOCK_MONOTONIC))
#define SET_CALLBACK(r) ATTEMPT(r, OP_SET_CALLBACK, bpf_timer_set_callback(&v->timer, fired))
#define START(r) ATTEMPT(r, OP_START, bpf_timer_start(&v->timer, NEVER_NS, 0))
#define CANCEL(r) ATTEMPT(r, OP_CANCEL, bpf_timer_cancel(&v->timer))
#define UPDATE(r) ATTEMPT(r, OP_UPDATE, bpf_map_update_elem(&cells, &r->cell, &empty, BPF_ANY))

ROW_ANY_CONTEXT(empty_row, {
	ATTEMPT(r, OP_EMPTY, 0);
})
ROW_ANY_CONTEXT(set_callback, {
	SET_CALLBACK(r);
})
ROW_ANY_CONTEXT(start, {
	START(r);
})
ROW(cancel, {
	CANCEL(r);
})
/* Cancelling drops the callback, so that a start needs it set again. */
ROW(start_cancel, {
	SET_CALLBACK(r);
	START(r);
	CANCEL(r);
})
ROW(init_free, {
	INIT(r);
	UPDATE(r);
})
ROW(lifecycle, {
	INIT(r);
	SET_CALLBACK(r);
	START(r);
	UPDATE(r);
})
ROW_ANY_CONTEXT(cancel_async, {
	ATTEMPT(r, OP_CANCEL_ASYNC, bpf_timer_cancel_async(&v->timer));
})
ROW(start_cancel_async, {
	SET_CALLBACK(r);
	START(r);
	ATTEMPT(r, OP_CANCEL_ASYNC, bpf_timer_cancel_async(&v->timer));
})
/*
 * Of 256: 128 set_callback, 102 start, 26 free and make again. A cell that another thread freed, or that
 * got no memory, is made again by whoever meets it.
 */
ROW(mixed, {
	long ret;

	if (r->choice < 128) {
		ret = SET_CALLBACK(r);
	} else if (r->choice < 230) {
		ret = START(r);
	} else {
		UPDATE(r);
		ret = -1;
	}
	if (ret < 0) {
		INIT(r);
		SET_CALLBACK(r);
	}
})

/* Not measured: brings a cell to life before a measurement. */
ROW(prepare, {
	INIT(r);
	SET_CALLBACK(r);
})

struct proof {
	__s64 ret[16];
};

/* Volatile, or the compiler shrinks them and their description no longer fits. */
static volatile __s64 cancelled_from_callback;
static volatile __u64 callback_ran;

static int cancels_itself(void *map, int *key, struct value *v)
{
	cancelled_from_callback = bpf_timer_cancel(&v->timer);
	callback_ran = 1;
	return 0;
}

/* Every error a single thread can provoke, in the order that the proof in user space lists. */
SEC("syscall") int proof(struct proof *p)
{
	__u32 zero = 0;
	struct value *v = bpf_map_lookup_elem(&cells, &zero);

	if (!v)
		return 1;
	bpf_map_update_elem(&cells, &zero, &empty, BPF_ANY);
	p->ret[0] = bpf_timer_set_callback(&v->timer, fired);
	p->ret[1] = bpf_timer_start(&v->timer, NEVER_NS, 0);
	p->ret[2] = bpf_timer_cancel(&v->timer);
	p->ret[3] = bpf_timer_init(&v->timer, &cells, 15);
	p->ret[4] = bpf_timer_init(&v->timer, &cells, CLOCK_MONOTONIC | 1 << 20);
	p->ret[5] = bpf_timer_init(&v->timer, &cells, CLOCK_MONOTONIC);
	p->ret[6] = bpf_timer_init(&v->timer, &cells, CLOCK_MONOTONIC);
	p->ret[7] = bpf_timer_start(&v->timer, NEVER_NS, 0);
	p->ret[8] = bpf_timer_set_callback(&v->timer, fired);
	p->ret[9] = bpf_timer_start(&v->timer, NEVER_NS, 1 << 20);
	p->ret[10] = bpf_timer_start(&v->timer, NEVER_NS, 0);
	p->ret[11] = bpf_timer_cancel(&v->timer);
	p->ret[12] = bpf_timer_start(&v->timer, NEVER_NS, 0);
	p->ret[13] = bpf_timer_set_callback(&v->timer, cancels_itself);
	p->ret[14] = bpf_timer_start(&v->timer, 0, 0);
	return 0;
}

SEC("syscall") int proof_callback(struct proof *p)
{
	p->ret[0] = callback_ran;
	p->ret[1] = cancelled_from_callback;
	return 0;
}

SEC("syscall") int proof_cancel_async(struct proof *p)
{
	__u32 zero = 0;
	struct value *v = bpf_map_lookup_elem(&cells, &zero);

	if (!v)
		return 1;
	bpf_map_update_elem(&cells, &zero, &empty, BPF_ANY);
	p->ret[0] = bpf_timer_cancel_async(&v->timer);
	p->ret[1] = bpf_timer_init(&v->timer, &cells, CLOCK_MONOTONIC);
	p->ret[2] = bpf_timer_cancel_async(&v->timer);
	p->ret[3] = bpf_timer_set_callback(&v->timer, fired);
	p->ret[4] = bpf_timer_start(&v->timer, NEVER_NS, 0);
	p->ret[5] = bpf_timer_cancel_async(&v->timer);
	return 0;
}

/* Run after user space let go of the map: an init then must fail. */
SEC("syscall") int proof_unreferenced(struct proof *p)
{
	__u32 zero = 0;
	struct value *v = bpf_map_lookup_elem(&cells, &zero);

	if (!v)
		return 1;
	p->ret[0] = bpf_timer_init(&v->timer, &cells, CLOCK_MONOTONIC);
	return 0;
}
