/* The machine that a board hangs on: its console, its files, and how to end. By semihosting, which QEMU
   and debuggers speak: the program stops at a certain instruction with the number of an operation in
   one register and the address of its arguments in another. */
#ifndef HOST_H
#define HOST_H

#include <stddef.h>
#include <stdint.h>

/* Text to the console, as it is. */
void print(const char *text);
/* A space, then a number. */
void print_number(uint32_t number);
/* A space, then a word in hexadecimal, eight digits. */
void print_hex(uint32_t word);

/* A file in the working directory of the host, to read or to write; negative where that fails. */
int host_open(const char *name);
int host_create(const char *name);
/* Nonzero where all of it was read or written. */
int host_read(int file, void *data, size_t length);
int host_write(int file, const void *data, size_t length);

#if defined(__GNUC__)
__attribute__((noreturn))
#endif
void host_exit(int code);

/* The bits of floats as one word: FNV-1a over their bytes. */
uint32_t digest(const float *x, size_t length);
/* The same of more of them. */
#define DIGEST_OF_NOTHING 0x811c9dc5u
uint32_t digest_more(uint32_t word, const float *x, size_t length);

#endif
