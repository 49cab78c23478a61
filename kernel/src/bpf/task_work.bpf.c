// SPDX-License-Identifier: MIT OR Apache-2.0
/* bpf_task_work: schedules a callback for the current task, which runs it on return to user space. */
#include "cell.h"

struct value {
	struct bpf_task_work work;
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

/* When each cell was last scheduled with success, for the latency until its callback. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} scheduled_ns SEC(".maps");

typedef int task_work_callback(struct bpf_map *map, void *key, void *value);

/* The program argument is explicit in older kernels and implied in newer ones. */
extern int bpf_task_work_schedule_signal_impl(struct task_struct *task, struct bpf_task_work *work,
					      void *map, task_work_callback *callback,
					      void *aux) __weak __ksym;
extern int bpf_task_work_schedule_signal(struct task_struct *task, struct bpf_task_work *work,
					 void *map, task_work_callback *callback) __weak __ksym;
extern int bpf_task_work_schedule_resume_impl(struct task_struct *task, struct bpf_task_work *work,
					      void *map, task_work_callback *callback,
					      void *aux) __weak __ksym;
extern int bpf_task_work_schedule_resume(struct task_struct *task, struct bpf_task_work *work,
					 void *map, task_work_callback *callback) __weak __ksym;

static const struct value empty;

static int ran(struct bpf_map *map, void *key, void *value)
{
	__u32 cell = *(__u32 *)key;
	__u64 *since = bpf_map_lookup_elem(&scheduled_ns, &cell);

	count_callback();
	if (since && *since) {
		sample(OP_CALLBACK, bpf_ktime_get_ns() - *since);
		*since = 0;
	}
	return 0;
}

static __always_inline long schedule_signal(struct bpf_task_work *work)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (bpf_ksym_exists(bpf_task_work_schedule_signal))
		return bpf_task_work_schedule_signal(task, work, &cells, ran);
	return bpf_task_work_schedule_signal_impl(task, work, &cells, ran, 0);
}

static __always_inline long schedule_resume(struct bpf_task_work *work)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (bpf_ksym_exists(bpf_task_work_schedule_resume))
		return bpf_task_work_schedule_resume(task, work, &cells, ran);
	return bpf_task_work_schedule_resume_impl(task, work, &cells, ran, 0);
}

/* Schedules; when this attempt is timed and succeeded, its callback reports the latency. */
#define SCHEDULE(r, how) do {							\
	__u64 now_ = (r)->timed ? bpf_ktime_get_ns() : 0;			\
	long scheduled_ = ATTEMPT(r, OP_SCHEDULE, how(&v->work));		\
	__u64 *since_ = now_ && !scheduled_ ?					\
		bpf_map_lookup_elem(&scheduled_ns, &(r)->cell) : 0;		\
	if (since_)								\
		*since_ = now_;							\
} while (0)

#define UPDATE(r) ATTEMPT(r, OP_UPDATE, bpf_map_update_elem(&cells, &r->cell, &empty, BPF_ANY))

ROW_ANY_CONTEXT(empty_row, {
	ATTEMPT(r, OP_EMPTY, 0);
})
ROW_ANY_CONTEXT(schedule, {
	SCHEDULE(r, schedule_signal);
})
ROW(schedule_on_resume, {
	SCHEDULE(r, schedule_resume);
})
ROW(schedule_free, {
	SCHEDULE(r, schedule_signal);
	UPDATE(r);
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
	p->ret[0] = schedule_signal(&v->work);
	p->ret[1] = schedule_signal(&v->work);
	p->ret[2] = schedule_resume(&v->work);
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

/* Run after user space let go of the map: scheduling then must fail. */
SEC("syscall") int proof_unreferenced(struct proof *p)
{
	__u32 zero = 0;
	struct value *v = bpf_map_lookup_elem(&cells, &zero);

	if (!v)
		return 1;
	p->ret[0] = schedule_signal(&v->work);
	return 0;
}
