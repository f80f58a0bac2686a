/*
 * count: a QEMU plugin that counts the instructions a program executes.
 *
 * What it writes, to the file that `out=` names:
 *
 *     total 77855                     every instruction of the run
 *     call measured_layer 65536       one line for each call of a watched function, in order:
 *     call measured_layer 65540       all it executed until it returned, its callees included
 *     symbol 60000 9000 4000 name     instructions, loads and stores of each function by itself
 *
 * A watched function is one whose name is the value of a `watch=` option; calls nest by name no
 * deeper than WATCHED_DEPTH and are counted up to the instruction they return to. The counts are
 * instructions, not cycles, and repeat exactly from run to run.
 *
 *     gcc -O2 -shared -fPIC -o count.so count.c
 *     qemu-system-arm ... -plugin ./count.so,out=counts.txt,watch=measured_layer -kernel image
 *
 * It must never change what the program computes: it only reads. QEMU's plugin interface of version
 * 1 (QEMU 4.2 to 8.2) is declared here by hand, because Debian has no package with the header.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- QEMU's plugin interface, version 1: what is used of it ---- */

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct qemu_info qemu_info_t; /* never looked into */
struct qemu_plugin_tb;                /* a block of code that runs from its start, without branches */
struct qemu_plugin_insn;

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_R = 1, QEMU_PLUGIN_MEM_W, QEMU_PLUGIN_MEM_RW };
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

typedef void (*qemu_plugin_vcpu_tb_trans_cb_t)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*qemu_plugin_vcpu_udata_cb_t)(unsigned vcpu, void *data);
typedef void (*qemu_plugin_vcpu_mem_cb_t)(unsigned vcpu, qemu_plugin_meminfo_t, uint64_t address,
                                          void *data);
typedef void (*qemu_plugin_udata_cb_t)(qemu_plugin_id_t, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, qemu_plugin_vcpu_tb_trans_cb_t);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, qemu_plugin_vcpu_udata_cb_t,
                                          enum qemu_plugin_cb_flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, enum qemu_plugin_op,
                                                void *counter, uint64_t add);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, qemu_plugin_vcpu_mem_cb_t,
                                      enum qemu_plugin_cb_flags, enum qemu_plugin_mem_rw, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, qemu_plugin_udata_cb_t, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

/* ---- What has been counted ---- */

/* A function of the program, by its symbol. */
struct function {
    char *name;
    uint64_t entry; /* the lowest address seen of it: a call always begins there */
    uint64_t instructions, loads, stores;
    bool watched;
    struct function *next; /* of the same hash */
};

/* A block of code as QEMU translated it. */
struct block {
    uint64_t start;
    uint64_t end; /* one past the last instruction: where a call at its end returns to */
    struct function *function;
};

/* A watched call that has not returned yet. */
struct open_call {
    uint64_t return_to;
    uint64_t total_before;
    size_t record;
};

struct record {
    const struct function *function;
    uint64_t instructions;
};

enum { BUCKETS = 4096, WATCHED_NAMES = 16, WATCHED_DEPTH = 16 };

static struct function *functions[BUCKETS];
static size_t function_count;
static uint64_t total;
static const struct block *previous;
static struct open_call open_calls[WATCHED_DEPTH];
static size_t open_count;
static struct record *records;
static size_t record_count, record_room;
static const char *watched_names[WATCHED_NAMES];
static size_t watched_count;
static const char *output;

static void *or_die(void *memory)
{
    if (!memory) {
        fputs("count: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

/* The function that an instruction belongs to, made on first sight. Code without a symbol is
 * gathered under one name. */
static struct function *function_of(const char *name, uint64_t address)
{
    if (!name || !*name) {
        name = "(no symbol)";
    }
    unsigned hash = 5381;
    for (const char *c = name; *c; c++) {
        hash = hash * 33 + (unsigned char)*c;
    }
    struct function **bucket = &functions[hash % BUCKETS];
    for (struct function *f = *bucket; f; f = f->next) {
        if (strcmp(f->name, name) == 0) {
            if (address < f->entry) {
                f->entry = address;
            }
            return f;
        }
    }
    struct function *f = or_die(calloc(1, sizeof *f));
    f->name = or_die(strdup(name));
    f->entry = address;
    for (size_t i = 0; i < watched_count; i++) {
        f->watched |= strcmp(watched_names[i], name) == 0;
    }
    f->next = *bucket;
    *bucket = f;
    function_count++;
    return f;
}

/* ---- While the program runs ---- */

/* A block begins: a watched call may begin or end here. Runs before the block's first instruction
 * is counted. */
static void on_block(unsigned vcpu, void *data)
{
    (void)vcpu;
    const struct block *block = data;
    if (open_count > 0 && block->start == open_calls[open_count - 1].return_to) {
        const struct open_call *call = &open_calls[--open_count];
        records[call->record].instructions = total - call->total_before;
    }
    if (block->function->watched && block->start == block->function->entry && previous
        && open_count < WATCHED_DEPTH) {
        if (record_count == record_room) {
            record_room = record_room ? 2 * record_room : 64;
            records = or_die(realloc(records, record_room * sizeof *records));
        }
        records[record_count] = (struct record){block->function, 0};
        open_calls[open_count++] = (struct open_call){previous->end, total, record_count++};
    }
    previous = block;
}

static void on_memory(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    (void)vcpu;
    (void)address;
    struct function *f = data;
    if (qemu_plugin_mem_is_store(info)) {
        f->stores++;
    } else {
        f->loads++;
    }
}

/* QEMU translates a block: every instruction of it gets its counters. Blocks are never freed: a
 * program has a few thousand. */
static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    const size_t n = qemu_plugin_tb_n_insns(tb);
    struct block *block = or_die(calloc(1, sizeof *block));
    block->start = qemu_plugin_tb_vaddr(tb);
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        const uint64_t address = qemu_plugin_insn_vaddr(insn);
        struct function *f = function_of(qemu_plugin_insn_symbol(insn), address);
        if (i == 0) {
            block->function = f;
        }
        block->end = address + qemu_plugin_insn_size(insn);
        qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64, &total, 1);
        qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64,
                                                   &f->instructions, 1);
        qemu_plugin_register_vcpu_mem_cb(insn, on_memory, QEMU_PLUGIN_CB_NO_REGS,
                                         QEMU_PLUGIN_MEM_RW, f);
    }
    if (block->function) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS, block);
    }
}

/* ---- At the end ---- */

static int most_instructions_first(const void *left, const void *right)
{
    const struct function *a = *(struct function *const *)left;
    const struct function *b = *(struct function *const *)right;
    if (a->instructions != b->instructions) {
        return a->instructions < b->instructions ? 1 : -1;
    }
    return strcmp(a->name, b->name);
}

static void on_end(qemu_plugin_id_t id, void *data)
{
    (void)id;
    (void)data;
    FILE *file = fopen(output, "w");
    if (!file) {
        perror(output);
        return;
    }
    fprintf(file, "total %" PRIu64 "\n", total);
    for (size_t i = 0; i < record_count; i++) {
        fprintf(file, "call %s %" PRIu64 "\n", records[i].function->name, records[i].instructions);
    }
    struct function **sorted = or_die(calloc(function_count + 1, sizeof *sorted));
    size_t n = 0;
    for (size_t hash = 0; hash < BUCKETS; hash++) {
        for (struct function *f = functions[hash]; f; f = f->next) {
            sorted[n++] = f;
        }
    }
    qsort(sorted, n, sizeof *sorted, most_instructions_first);
    for (size_t i = 0; i < n; i++) {
        const struct function *f = sorted[i];
        fprintf(file, "symbol %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n", f->instructions, f->loads,
                f->stores, f->name);
    }
    free(sorted);
    fclose(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            output = or_die(strdup(argv[i] + 4));
        } else if (strncmp(argv[i], "watch=", 6) == 0 && watched_count < WATCHED_NAMES) {
            watched_names[watched_count++] = or_die(strdup(argv[i] + 6));
        } else {
            fprintf(stderr, "count: unknown option or too many: %s\n", argv[i]);
            return -1;
        }
    }
    if (!output) {
        fputs("count: out=FILE is missing\n", stderr);
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, on_end, NULL);
    return 0;
}
