// Moves CLOCK_REALTIME of one process by as many seconds as the first eight bytes of the file
// named by CLOCK_SHIFT say (a signed number in the order of the machine), read at every call.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shift;
static int (*next)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  next = dlsym(RTLD_NEXT, "clock_gettime");
  const char *path = getenv("CLOCK_SHIFT");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *there = mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
  if (there != MAP_FAILED) shift = there;
  close(file);
}

int clock_gettime(clockid_t id, struct timespec *time) {
  if (!next) next = dlsym(RTLD_NEXT, "clock_gettime");
  int result = next(id, time);
  if (!result && shift && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) time->tv_sec += *shift;
  return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  (void)zone;
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
