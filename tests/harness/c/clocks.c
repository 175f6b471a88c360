// Shifts the clocks that a process reads, as far as two numbers in a file say: by how much CLOCK_MONOTONIC is behind, as on
// a machine that was suspended for so long, and by how much the wall clock was set. CLOCK_BOOTTIME is left alone. Preloaded
// (LD_PRELOAD) into the processes of one machine, which share the file: HARNESS_CLOCKS is its path, or that of the directory
// in which it bears the name INSTANCE_NAME.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL

struct shift {
    volatile int64_t suspended_ns;
    volatile int64_t wall_ns;
};

static const struct shift none;
static const struct shift *shift = &none;
static int (*read_clock)(clockid_t, struct timespec *);

static void find_clock(void)
{
    if (read_clock == NULL)
        read_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
}

__attribute__((constructor)) static void open_shift(void)
{
    const char *path = getenv("HARNESS_CLOCKS"), *name = getenv("INSTANCE_NAME");
    char in_directory[4096];
    find_clock();
    if (path == NULL)
        return;
    if (name != NULL) {
        snprintf(in_directory, sizeof in_directory, "%s/%s", path, name);
        path = in_directory;
    }
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        perror(path);
        abort();
    }
    void *page = mmap(NULL, sizeof(struct shift), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page == MAP_FAILED) {
        perror(path);
        abort();
    }
    shift = page;
}

static void add(struct timespec *time, int64_t ns)
{
    int64_t sum = time->tv_sec * NS_PER_S + time->tv_nsec + ns;
    time->tv_sec = sum / NS_PER_S;
    time->tv_nsec = sum % NS_PER_S;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    find_clock();
    int result = read_clock(clock, time);
    if (result != 0)
        return result;
    switch (clock) {
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_MONOTONIC_RAW:
        add(time, -shift->suspended_ns);
        break;
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        add(time, shift->wall_ns);
        break;
    }
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL)
        *out = now.tv_sec;
    return now.tv_sec;
}
