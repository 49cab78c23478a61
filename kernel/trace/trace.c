/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A plugin for QEMU's code generator that writes down which instructions the guest's kernel executes
 * and which memory they access, while the guest asks for it.
 *
 *   -plugin trace.so,out=FILE
 *
 * The guest asks with instructions that do nothing on any processor: `nopl MAGIC+code(%rax,%rax,1)`,
 * eight bytes, 0f 1f 84 00 and a displacement that no compiler emits.
 *
 *   0  ready: from now on code is translated with callbacks. What was translated before is thrown
 *      away, so that code runs at full speed until the first `ready` and where no window is near.
 *   1  begin of a window
 *   2  end of a window
 *   3  rest: code that is translated from now on has no callbacks
 *
 * Records, little-endian, each behind one byte that names its kind:
 *
 *   'B' u32                  begin of window, by number from 0
 *   'I' u64 u8 bytes...      an instruction: address, length, code
 *   'M' u64 u8               an access of the last instruction: address; bits 0..3 binary logarithm
 *                            of the size, bit 7 set for a store
 *   'E' u32                  end of window
 *
 * A window is of the processor that began it: what another one executes meanwhile is left out.
 *
 * A repeated string instruction is written once for each time that it repeats. QEMU's header is not
 * packaged by distributions; what is used of version 1 of the interface is declared here.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct qemu_info qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_CB_R_REGS, QEMU_PLUGIN_CB_RW_REGS };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_R = 1, QEMU_PLUGIN_MEM_W, QEMU_PLUGIN_MEM_RW };

typedef void (*simple_cb)(qemu_plugin_id_t id);
typedef void (*udata_cb)(qemu_plugin_id_t id, void *data);
typedef void (*tb_trans_cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*exec_cb)(unsigned int vcpu, void *data);
typedef void (*mem_cb)(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data);

void qemu_plugin_reset(qemu_plugin_id_t id, simple_cb cb);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, tb_trans_cb cb);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, udata_cb cb, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t idx);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, exec_cb cb,
					    enum qemu_plugin_cb_flags flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, mem_cb cb,
				      enum qemu_plugin_cb_flags flags, enum qemu_plugin_mem_rw rw,
				      void *data);
unsigned int qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t info);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t info);

EXPORT int qemu_plugin_version = 1;

enum { MAGIC = 0x0ce11b00 };
enum { READY, BEGIN, END, REST };
#define KERNEL_HALF 0x8000000000000000ull
#define MAX_INSN 15

/* An instruction as it was translated. The key of its interning is address and code. */
struct insn {
	struct insn *next;
	uint64_t vaddr;
	uint8_t size;
	uint8_t code[MAX_INSN];
};

enum { BUCKETS = 1 << 16 };
static struct insn *insns[BUCKETS];

static qemu_plugin_id_t self;
static FILE *out;
static uint32_t window;
static bool open_window;
/* The processor that began the window. */
static unsigned int owner;
/* Between `ready`, once old translations are gone, and `rest`. */
static bool instrument;

/* Says what is wrong and ends QEMU: a trace with a hole in it is worse than none. */
static void die(const char *what)
{
	fprintf(stderr, "cellbench-trace: %s: %s\n", what, strerror(errno));
	_exit(74);
}

static void put(const void *bytes, size_t size)
{
	if (fwrite(bytes, 1, size, out) != size)
		die("writing the trace");
}

static void put_boundary(uint8_t kind)
{
	uint8_t record[5] = { kind };

	memcpy(record + 1, &window, 4);
	put(record, sizeof(record));
}

static void on_insn(unsigned int vcpu, void *data)
{
	const struct insn *insn = data;
	uint8_t record[10 + MAX_INSN] = { 'I' };

	if (!open_window || vcpu != owner)
		return;
	memcpy(record + 1, &insn->vaddr, 8);
	record[9] = insn->size;
	memcpy(record + 10, insn->code, insn->size);
	put(record, 10 + insn->size);
}

static void on_access(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data)
{
	uint8_t record[10] = { 'M' };

	if (!open_window || vcpu != owner)
		return;
	memcpy(record + 1, &vaddr, 8);
	record[9] = qemu_plugin_mem_size_shift(info) | (qemu_plugin_mem_is_store(info) ? 0x80 : 0);
	put(record, sizeof(record));
}

static void install(qemu_plugin_id_t id);

/* Runs when every translation without callbacks is gone. */
static void on_reset(qemu_plugin_id_t id)
{
	instrument = true;
	install(id);
}

static void on_marker(unsigned int vcpu, void *data)
{
	switch ((int)(uintptr_t)data) {
	case READY:
		qemu_plugin_reset(self, on_reset);
		break;
	case BEGIN:
		if (!instrument) {
			errno = EPROTO;
			die("a window began before the plugin was ready");
		}
		if (!open_window) {
			put_boundary('B');
			owner = vcpu;
		}
		open_window = true;
		break;
	case END:
		if (open_window) {
			put_boundary('E');
			window++;
			if (fflush(out))
				die("writing the trace");
		}
		open_window = false;
		break;
	case REST:
		instrument = false;
		break;
	}
}

/* Which marker the code is; -1 for none. */
static int marker(const uint8_t *code, size_t size)
{
	int32_t displacement;

	if (size != 8 || memcmp(code, "\x0f\x1f\x84\x00", 4))
		return -1;
	memcpy(&displacement, code + 4, 4);
	displacement -= MAGIC;
	return displacement >= READY && displacement <= REST ? displacement : -1;
}

/* Callbacks keep the pointer for as long as the translation lives, which no one tells: never freed. */
static struct insn *intern(uint64_t vaddr, const uint8_t *code, size_t size)
{
	struct insn **bucket = &insns[(vaddr ^ vaddr >> 16) % BUCKETS];
	struct insn *insn;

	for (insn = *bucket; insn; insn = insn->next)
		if (insn->vaddr == vaddr && insn->size == size && !memcmp(insn->code, code, size))
			return insn;
	insn = calloc(1, sizeof(*insn));
	if (!insn)
		die("keeping an instruction");
	insn->vaddr = vaddr;
	insn->size = size;
	memcpy(insn->code, code, size);
	insn->next = *bucket;
	*bucket = insn;
	return insn;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t n = qemu_plugin_tb_n_insns(tb);

	for (size_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		const uint8_t *code = qemu_plugin_insn_data(insn);
		size_t size = qemu_plugin_insn_size(insn);
		uint64_t vaddr = qemu_plugin_insn_vaddr(insn);

		if (vaddr < KERNEL_HALF) {
			int which = marker(code, size);

			if (which >= 0)
				qemu_plugin_register_vcpu_insn_exec_cb(insn, on_marker,
								       QEMU_PLUGIN_CB_NO_REGS,
								       (void *)(uintptr_t)which);
		} else if (instrument && size <= MAX_INSN) {
			struct insn *kept = intern(vaddr, code, size);

			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_insn,
							       QEMU_PLUGIN_CB_NO_REGS, kept);
			qemu_plugin_register_vcpu_mem_cb(insn, on_access, QEMU_PLUGIN_CB_NO_REGS,
							 QEMU_PLUGIN_MEM_RW, kept);
		}
	}
}

static void on_exit_of_qemu(qemu_plugin_id_t id, void *data)
{
	if (fclose(out))
		die("writing the trace");
}

static void install(qemu_plugin_id_t id)
{
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	qemu_plugin_register_atexit_cb(id, on_exit_of_qemu, NULL);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	self = id;
	for (int i = 0; i < argc; i++)
		if (!strncmp(argv[i], "out=", 4))
			out = fopen(argv[i] + 4, "wb");
	if (!out) {
		fprintf(stderr, "cellbench-trace: out=FILE: %s\n", strerror(errno));
		return 1;
	}
	setvbuf(out, NULL, _IOFBF, 1 << 20);
	install(id);
	return 0;
}
