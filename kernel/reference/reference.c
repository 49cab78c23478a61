// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A minimal program on plain libbpf that measures the same BPF objects as the crate, to cross-check it:
 * the solo time of an attempt of set_callback and of the lock pairs. Shares with the crate the BPF code
 * alone; `compare.sh` runs both side by side.
 *
 *   reference OBJECT PROGRAM    prints the median of nine batches in nanoseconds per attempt
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

enum { ATTEMPTS = 2000000, REPEATS = 9, WORDS = 23 };
/* Words of `struct args` in ../src/bpf/cell.h. */
enum { ATTEMPTS_MAX = 0, ELAPSED_NS = 10, FAILED = 12 };

static int enter(int program, unsigned long long *args, unsigned long long attempts)
{
	LIBBPF_OPTS(bpf_test_run_opts, options,
		.ctx_in = args,
		.ctx_size_in = WORDS * sizeof(*args),
	);

	memset(args, 0, WORDS * sizeof(*args));
	args[ATTEMPTS_MAX] = attempts;
	return bpf_prog_test_run_opts(program, &options);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	unsigned long long args[WORDS];
	double ns[REPEATS];
	struct bpf_object *object;
	struct bpf_program *program, *prepare;
	cpu_set_t last;

	if (argc != 3) {
		fprintf(stderr, "usage: reference OBJECT PROGRAM\n");
		return 2;
	}
	CPU_ZERO(&last);
	CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1, &last);
	if (sched_setaffinity(0, sizeof(last), &last)) {
		perror("reference: pinning to the last CPU");
		return 2;
	}
	object = bpf_object__open_file(argv[1], NULL);
	if (!object) {
		perror("reference: opening the object");
		return 2;
	}
	bpf_object__for_each_program(program, object) {
		const char *name = bpf_program__name(program);

		bpf_program__set_autoload(program, !strcmp(name, argv[2]) || !strcmp(name, "prepare"));
	}
	if (bpf_object__load(object)) {
		perror("reference: loading the object");
		return 2;
	}
	program = bpf_object__find_program_by_name(object, argv[2]);
	prepare = bpf_object__find_program_by_name(object, "prepare");
	if (!program || (prepare && enter(bpf_program__fd(prepare), args, 1))) {
		fprintf(stderr, "reference: no such program, or preparing failed\n");
		return 2;
	}
	for (int i = 0; i < REPEATS; i++) {
		if (enter(bpf_program__fd(program), args, ATTEMPTS) || args[FAILED]) {
			perror("reference: running the program");
			return 2;
		}
		ns[i] = (double)args[ELAPSED_NS] / ATTEMPTS;
	}
	qsort(ns, REPEATS, sizeof(*ns), ascending);
	printf("%.2f\n", ns[REPEATS / 2]);
	bpf_object__close(object);
	return 0;
}
