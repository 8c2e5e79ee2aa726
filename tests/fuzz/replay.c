/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feeds files to a fuzz target without a fuzzing engine: `replay FILE-OR-DIRECTORY...`. Linked with
 * one fuzz_*.c, whose checks abort. A run that has fed nothing fails.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long inputs;
static int failed;

static void complain(const char *path)
{
    fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
    failed = 1;
}

static void replay_file(const char *path, size_t size)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(size > 0 ? size : 1); /* exactly as long: reading beyond it is seen */

    if (f == NULL || data == NULL || fread(data, 1, size, f) != size) {
        complain(path);
    } else {
        LLVMFuzzerTestOneInput(data, size);
        inputs++;
    }
    free(data);
    if (f != NULL) {
        fclose(f);
    }
}

static void replay(const char *path);

static void replay_directory(const char *path)
{
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort);

    if (n < 0) {
        complain(path);
        return;
    }
    for (int i = 0; i < n; i++) {
        char inner[4096];

        if (names[i]->d_name[0] != '.' && (size_t)snprintf(inner, sizeof(inner), "%s/%s", path,
                                                           names[i]->d_name) < sizeof(inner)) {
            replay(inner);
        }
        free(names[i]);
    }
    free(names);
}

static void replay(const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        complain(path);
    } else if (S_ISDIR(st.st_mode)) {
        replay_directory(path);
    } else {
        replay_file(path, (size_t)st.st_size);
    }
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        replay(argv[i]);
    }
    printf("replayed %lu inputs\n", inputs);
    if (inputs == 0) {
        fprintf(stderr, "replay: nothing was fed; name files or directories of inputs\n");
    }
    return failed != 0 || inputs == 0;
}
