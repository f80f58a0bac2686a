/*
 * count: a QEMU plugin that counts the instructions a program executes.
 *
 * What it writes, to the file that `out=` names:
 *
 *     total 77855                     every instruction of the run
 *     call measured_layer 65536       one line for each call of a watched function, in order:
 *     call measured_layer 65540       all it executed until it returned, its callees included
 *     part 60000 9000 4000 36000 16000 … name
 *                                     only with the option parts=on: what a function did in the call
 *                                     above, most first: instructions, loads, stores, bytes loaded,
 *                                     bytes stored, and instructions of each class (enum count)
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
typedef struct qemu_info qemu_info_t; /* nothing but its first member is looked at */
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
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

/* ---- What has been counted ---- */

/* What is counted of a function. The classes are Thumb's, for estimates of cycles; on another machine
 * they stay 0. */
enum count {
    INSTRUCTIONS,
    LOADS,
    STORES,
    BYTES_LOADED,
    BYTES_STORED,
    SINGLE,        /* loads and stores of one register */
    SINGLE_AGAIN,  /* those of them right behind another one */
    MULTIPLE,      /* loads and stores of several registers, push and pop among them */
    WORDS,         /* the words of those */
    FLOAT,         /* sums, products, comparisons, conversions, moves of floats */
    MULTIPLY_ADD,  /* of floats, fused or not */
    FLOAT_DIVIDE,  /* and square roots */
    MOVE_TWO,      /* between two core registers and two floats */
    DIVIDE,        /* of integers */
    VECTOR_MEMORY, /* Helium's loads and stores */
    VECTOR,        /* Helium's arithmetic */
    TAKEN,         /* branches, calls and returns that were taken */
    COUNTS
};

/* A function of the program, by its symbol. */
struct function {
    char *name;
    uint64_t entry; /* the lowest address seen of it: a call always begins there */
    uint64_t counts[COUNTS];
    size_t index;
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
    uint64_t (*before)[COUNTS]; /* of every function then known, where parts are wanted */
    size_t known;
};

/* What a function did in a call. */
struct part {
    const struct function *function;
    uint64_t counts[COUNTS];
};

struct record {
    const struct function *function;
    uint64_t instructions;
    struct part *parts;
    size_t part_count;
};

enum { BUCKETS = 4096, WATCHED_NAMES = 16, WATCHED_DEPTH = 16 };

static struct function *functions[BUCKETS];
static struct function **known_functions;
static size_t function_count, function_room;
static uint64_t total;
static const struct block *previous;
static struct open_call open_calls[WATCHED_DEPTH];
static size_t open_count;
static struct record *records;
static size_t record_count, record_room;
static const char *watched_names[WATCHED_NAMES];
static size_t watched_count;
static const char *output;
static bool parts_wanted, thumb;

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
    if (function_count == function_room) {
        function_room = function_room ? 2 * function_room : 256;
        known_functions =
            or_die(realloc(known_functions, function_room * sizeof *known_functions));
    }
    f->index = function_count;
    known_functions[function_count++] = f;
    return f;
}

/* ---- The classes of Thumb's instructions ---- */

static unsigned ones(unsigned word)
{
    unsigned n = 0;
    for (; word; word &= word - 1) {
        n++;
    }
    return n;
}

/* The class of an instruction, COUNTS where it has none, and how many words it moves if several. From
 * the encodings of the Armv7-M and Armv8.1-M reference manuals. */
static enum count class_of(const uint16_t *code, size_t size, unsigned *words)
{
    const unsigned first = code[0];
    *words = 0;
    if (size == 2) {
        if ((first & 0xf600) == 0xb400) { /* push, pop */
            *words = ones(first & 0x1ff);
            return MULTIPLE;
        }
        if ((first & 0xf000) == 0xc000) { /* ldm, stm */
            *words = ones(first & 0xff);
            return MULTIPLE;
        }
        const unsigned top = first >> 12;
        bool single = (first & 0xf800) == 0x4800 || top == 5 || top == 6 || top == 7 || top == 8
                   || top == 9;
        return single ? SINGLE : COUNTS;
    }
    const unsigned second = code[1];
    if ((first & 0xfe40) == 0xe800) {
        *words = ones(second);
        return MULTIPLE;
    }
    if ((first & 0xfe40) == 0xe840) { /* ldrd, strd, and what is rarer */
        *words = 2;
        return MULTIPLE;
    }
    if ((first & 0xfe00) == 0xf800) {
        return SINGLE;
    }
    if ((first & 0xffd0) == 0xfb90) {
        return DIVIDE;
    }
    const unsigned coprocessor = second >> 8 & 15;
    if ((first & 0xee00) == 0xec00) {
        if (coprocessor >= 14) {
            return VECTOR_MEMORY;
        }
        if ((first & 0xffe0) == 0xec40) {
            return MOVE_TWO;
        }
        if ((first & 0x0120) == 0x0100) {
            return SINGLE;
        }
        *words = second & 0xff;
        return MULTIPLE;
    }
    if ((first & 0xef00) == 0xef00 || ((first & 0xef00) == 0xee00 && coprocessor >= 14)) {
        return VECTOR;
    }
    if ((first & 0xef00) == 0xee00 && (coprocessor == 10 || coprocessor == 11)) {
        if (second & 0x10 || first & 0x1000) {
            return FLOAT;
        }
        switch (first >> 4 & 0xb) {
        case 0x0:
        case 0x1:
        case 0x9:
        case 0xa:
            return MULTIPLY_ADD;
        case 0x8:
            return FLOAT_DIVIDE;
        case 0xb:
            return (first & 15) == 1 && (second & 0xc0) == 0xc0 ? FLOAT_DIVIDE : FLOAT;
        default:
            return FLOAT;
        }
    }
    return COUNTS;
}

/* ---- While the program runs ---- */

/* A watched call has returned: what each function did in it. */
static void take_parts(const struct open_call *call)
{
    struct record *record = &records[call->record];
    record->parts = or_die(calloc(function_count + 1, sizeof *record->parts));
    for (size_t i = 0; i < function_count; i++) {
        struct part *part = &record->parts[record->part_count];
        part->function = known_functions[i];
        for (size_t c = 0; c < COUNTS; c++) {
            const uint64_t before = i < call->known ? call->before[i][c] : 0;
            part->counts[c] = known_functions[i]->counts[c] - before;
        }
        record->part_count += part->counts[INSTRUCTIONS] > 0;
    }
    free(call->before);
}

/* A block begins: a watched call may begin or end here. Runs before the block's first instruction
 * is counted. */
static void on_block(unsigned vcpu, void *data)
{
    (void)vcpu;
    const struct block *block = data;
    if (open_count > 0 && block->start == open_calls[open_count - 1].return_to) {
        const struct open_call *call = &open_calls[--open_count];
        records[call->record].instructions = total - call->total_before;
        if (parts_wanted) {
            take_parts(call);
        }
    }
    if (block->function->watched && block->start == block->function->entry && previous
        && open_count < WATCHED_DEPTH) {
        if (record_count == record_room) {
            record_room = record_room ? 2 * record_room : 64;
            records = or_die(realloc(records, record_room * sizeof *records));
        }
        records[record_count] = (struct record){block->function, 0, NULL, 0};
        struct open_call *call = &open_calls[open_count++];
        *call = (struct open_call){previous->end, total, record_count++, NULL, 0};
        if (parts_wanted) {
            call->known = function_count;
            call->before = or_die(calloc(function_count + 1, sizeof *call->before));
            for (size_t i = 0; i < function_count; i++) {
                memcpy(call->before[i], known_functions[i]->counts, sizeof call->before[i]);
            }
        }
    }
    if (previous && previous->end != block->start) {
        previous->function->counts[TAKEN]++;
    }
    previous = block;
}

static void on_memory(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    (void)vcpu;
    (void)address;
    struct function *f = data;
    const uint64_t bytes = UINT64_C(1) << qemu_plugin_mem_size_shift(info);
    const bool store = qemu_plugin_mem_is_store(info);
    f->counts[store ? STORES : LOADS]++;
    f->counts[store ? BYTES_STORED : BYTES_LOADED] += bytes;
}

static void count_more(struct qemu_plugin_insn *insn, uint64_t *counter, uint64_t add)
{
    qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64, counter, add);
}

/* QEMU translates a block: every instruction of it gets its counters. Blocks are never freed: a
 * program has a few thousand. */
static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    const size_t n = qemu_plugin_tb_n_insns(tb);
    struct block *block = or_die(calloc(1, sizeof *block));
    block->start = qemu_plugin_tb_vaddr(tb);
    enum count before = COUNTS;
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
                                                   &f->counts[INSTRUCTIONS], 1);
        if (thumb) {
            unsigned words;
            const size_t size = qemu_plugin_insn_size(insn);
            const enum count class = class_of(qemu_plugin_insn_data(insn), size, &words);
            if (class < COUNTS) {
                count_more(insn, &f->counts[class], 1);
            }
            if (class == SINGLE && before == SINGLE) {
                count_more(insn, &f->counts[SINGLE_AGAIN], 1);
            }
            if (words > 0) {
                count_more(insn, &f->counts[WORDS], words);
            }
            before = class;
        }
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
    if (a->counts[INSTRUCTIONS] != b->counts[INSTRUCTIONS]) {
        return a->counts[INSTRUCTIONS] < b->counts[INSTRUCTIONS] ? 1 : -1;
    }
    return strcmp(a->name, b->name);
}

static int parts_most_first(const void *left, const void *right)
{
    const struct part *a = left, *b = right;
    if (a->counts[INSTRUCTIONS] != b->counts[INSTRUCTIONS]) {
        return a->counts[INSTRUCTIONS] < b->counts[INSTRUCTIONS] ? 1 : -1;
    }
    return strcmp(a->function->name, b->function->name);
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
        if (records[i].part_count > 0) {
            qsort(records[i].parts, records[i].part_count, sizeof *records[i].parts,
                  parts_most_first);
        }
        for (size_t j = 0; j < records[i].part_count; j++) {
            const struct part *part = &records[i].parts[j];
            fputs("part", file);
            for (size_t c = 0; c < COUNTS; c++) {
                fprintf(file, " %" PRIu64, part->counts[c]);
            }
            fprintf(file, " %s\n", part->function->name);
        }
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
        fprintf(file, "symbol %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n", 
                f->counts[INSTRUCTIONS], f->counts[LOADS], f->counts[STORES], f->name);
    }
    free(sorted);
    fclose(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    /* The first member of what is handed over is the name of the machine's instructions. */
    thumb = strcmp(*(const char *const *)info, "arm") == 0;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            output = or_die(strdup(argv[i] + 4));
        } else if (strncmp(argv[i], "watch=", 6) == 0 && watched_count < WATCHED_NAMES) {
            watched_names[watched_count++] = or_die(strdup(argv[i] + 6));
        } else if (strcmp(argv[i], "parts=on") == 0) {
            parts_wanted = true;
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
