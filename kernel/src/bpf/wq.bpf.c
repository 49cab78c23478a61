// SPDX-License-Identifier: MIT OR Apache-2.0
/* The operations of bpf_wq. The callback runs on a kernel worker of the same CPU. */
#include "cell.h"

struct value {
	struct bpf_wq wq;
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

typedef int wq_callback(void *map, int *key, void *value);

extern int bpf_wq_init(struct bpf_wq *wq, void *map, unsigned int flags) __weak __ksym;
extern int bpf_wq_start(struct bpf_wq *wq, unsigned int flags) __weak __ksym;
/* The program argument is explicit in older kernels and implied in newer ones. */
extern int bpf_wq_set_callback_impl(struct bpf_wq *wq, wq_callback *callback, unsigned int flags,
				    void *aux) __weak __ksym;
extern int bpf_wq_set_callback(struct bpf_wq *wq, wq_callback *callback,
			       unsigned int flags) __weak __ksym;

static const struct value empty;

static int ran(void *map, int *key, void *value)
{
	count_callback();
	return 0;
}

static __always_inline long set_callback_of(struct bpf_wq *wq, unsigned int flags)
{
	if (bpf_ksym_exists(bpf_wq_set_callback))
		return bpf_wq_set_callback(wq, ran, flags);
	return bpf_wq_set_callback_impl(wq, ran, flags, 0);
}

#define INIT(r) ATTEMPT(r, OP_INIT, bpf_wq_init(&v->wq, &cells, 0))
#define SET_CALLBACK(r) ATTEMPT(r, OP_SET_CALLBACK, set_callback_of(&v->wq, 0))
#define START(r) ATTEMPT(r, OP_START, bpf_wq_start(&v->wq, 0))
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

SEC("syscall") int proof(struct proof *p)
{
	__u32 zero = 0;
	struct value *v = bpf_map_lookup_elem(&cells, &zero);

	if (!v)
		return 1;
	bpf_map_update_elem(&cells, &zero, &empty, BPF_ANY);
	p->ret[0] = set_callback_of(&v->wq, 0);
	p->ret[1] = bpf_wq_start(&v->wq, 0);
	p->ret[2] = bpf_wq_init(&v->wq, &cells, 1);
	p->ret[3] = bpf_wq_init(&v->wq, &cells, 0);
	p->ret[4] = bpf_wq_init(&v->wq, &cells, 0);
	p->ret[5] = bpf_wq_start(&v->wq, 0);
	p->ret[6] = set_callback_of(&v->wq, 1);
	p->ret[7] = set_callback_of(&v->wq, 0);
	p->ret[8] = bpf_wq_start(&v->wq, 1);
	p->ret[9] = bpf_wq_start(&v->wq, 0);
	return 0;
}

SEC("syscall") int proof_callback(struct proof *p)
{
	__u32 zero = 0, cpu;

	p->ret[0] = 0;
#pragma unroll
	for (cpu = 0; cpu < 8; cpu++) {
		__u64 *count = bpf_map_lookup_percpu_elem(&callbacks, &zero, cpu);

		if (count)
			p->ret[0] += *count;
	}
	return 0;
}

/* Run after user space let go of the map: an init then must fail. */
SEC("syscall") int proof_unreferenced(struct proof *p)
{
	__u32 zero = 0;
	struct value *v = bpf_map_lookup_elem(&cells, &zero);

	if (!v)
		return 1;
	p->ret[0] = bpf_wq_init(&v->wq, &cells, 0);
	return 0;
}
