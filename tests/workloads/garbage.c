// Runs code out of a file that only looks like an ELF file: usage: garbage SECONDS FILE...
//
// Puts a loop at offset 4096 of each file, maps that page as code and spends the time there, so that a profiler
// has to look into every one of the files.

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "loop_code.h"

#define FILES_MAX 64

int main(int argc, char **argv) {
    loop_function loops[FILES_MAX];
    int files = argc - 2;
    if (files < 1 || files > FILES_MAX) {
        fprintf(stderr, "usage: garbage SECONDS FILE...\n");
        return 2;
    }
    for (int index = 0; index < files; index++) {
        int file = open(argv[index + 2], O_RDWR);
        if (file < 0 || pwrite(file, loop_code, sizeof loop_code, 4096) != sizeof loop_code) {
            perror(argv[index + 2]);
            return 1;
        }
        void *code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 4096);
        if (code == MAP_FAILED) {
            perror("mmap");
            return 1;
        }
        close(file);
        loops[index] = (loop_function)code;
    }
    time_t deadline = time(NULL) + atoi(argv[1]);
    while (time(NULL) < deadline) {
        for (int index = 0; index < files; index++) {
            loops[index](10000000);
        }
    }
    return 0;
}
