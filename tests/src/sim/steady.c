// Stands before what differs from one process to the next: random bytes, and the clocks. tokio
// draws the order of waiters and of ready branches from the random keys of the standard library's
// maps, and HTTP headers carry the date; with this a simulation is the same in every process.
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>

// 2024-01-01, where the clocks of all simulations start.
static const time_t start = 1704067200;

static _Thread_local uint64_t state = 0x9e3779b97f4a7c15;

static uint64_t draw(void) {
  uint64_t z = (state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

ssize_t getrandom(void *buffer, size_t length, unsigned flags) {
  (void)flags;
  uint8_t *bytes = buffer;
  for (size_t i = 0; i < length; i++) bytes[i] = (uint8_t)draw();
  return (ssize_t)length;
}

int getentropy(void *buffer, size_t length) {
  getrandom(buffer, length, 0);
  return 0;
}

// The wall clock stands still. The others go on by a microsecond with every look, so that
// whoever waits for them does not wait for ever.
int clock_gettime(clockid_t id, struct timespec *time) {
  static _Thread_local uint64_t looks;
  uint64_t ns = id == CLOCK_REALTIME ? 0 : ++looks * 1000;
  time->tv_sec = start + (time_t)(ns / 1000000000);
  time->tv_nsec = (long)(ns % 1000000000);
  return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  (void)zone;
  time->tv_sec = start;
  time->tv_usec = 0;
  return 0;
}
