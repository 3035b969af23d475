// Machine code of `void loop(unsigned long turns)`, with a frame pointer, that runs wherever it is put.

#ifndef LOOP_CODE_H
#define LOOP_CODE_H

#if defined(__x86_64__)
static const unsigned char loop_code[] = {
    0x55,             // push %rbp
    0x48, 0x89, 0xe5, // mov %rsp, %rbp
    0x48, 0xff, 0xcf, // 1: dec %rdi
    0x75, 0xfb,       // jnz 1b
    0x5d,             // pop %rbp
    0xc3,             // ret
};
#elif defined(__aarch64__)
static const unsigned char loop_code[] = {
    0xfd, 0x7b, 0xbf, 0xa9, // stp x29, x30, [sp, #-16]!
    0xfd, 0x03, 0x00, 0x91, // mov x29, sp
    0x00, 0x04, 0x00, 0xf1, // 1: subs x0, x0, #1
    0xe1, 0xff, 0xff, 0x54, // b.ne 1b
    0xfd, 0x7b, 0xc1, 0xa8, // ldp x29, x30, [sp], #16
    0xc0, 0x03, 0x5f, 0xd6, // ret
};
#endif

typedef void (*loop_function)(unsigned long turns);

#endif
