/* A libnvidia-ml.so.1 for tests: two H100 with counters that move.  Compiled and loaded by tests/workflow/test_telemetry_sidecar.py.

   Device i draws 300 W and 400 W; its energy counter is written every FAKE_NVML_STEP_MS (20 ms if not set).  Clocks,
   temperature and memory differ from call to call.  FAKE_NVML_REASONS: bits of the clocks event reasons.
   FAKE_NVML_MIG: device 1 is in MIG mode and has one instance.  FAKE_NVML_CAP: power limit, W (700 if not set).
   FAKE_NVML_LOG: a file that gets a digit for every call about a device: its number. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6 };
typedef struct { unsigned number; int instance; unsigned calls; } Device;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;

static Device devices[2] = {{0, 0, 0}, {1, 0, 0}}, instance = {1, 1, 0};
static const char *UUID[2] = {"GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-0000-0000-0000-000000000001"};
static const char *MIG_UUID = "MIG-cccccccc-0000-0000-0000-000000000002";

static long setting(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text && *text ? strtol(text, NULL, 0) : otherwise;
}
static Device *asked(Device *device) {
  const char *path = getenv("FAKE_NVML_LOG");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (file) { fputc('0' + device->number, file); fclose(file); }
  return device;
}
static int mig(Device *d) { return d->number == 1 && setting("FAKE_NVML_MIG", 0); }

int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == NOT_SUPPORTED ? "Not Supported" : "Other"; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "580.65.06", length); return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **d) { *d = &devices[index]; return index < 2 ? SUCCESS : NOT_FOUND; }
int nvmlDeviceGetHandleByUUID(const char *uuid, Device **d) {
  *d = &instance;
  return setting("FAKE_NVML_MIG", 0) && !strcmp(uuid, MIG_UUID) ? SUCCESS : NOT_FOUND;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *d, Device **gpu) { *gpu = &devices[1]; return SUCCESS; }
int nvmlDeviceGetUUID(Device *d, char *text, unsigned length) {
  strncpy(text, d->instance ? MIG_UUID : UUID[d->number], length);
  return SUCCESS;
}
int nvmlDeviceGetName(Device *d, char *text, unsigned length) { strncpy(text, "NVIDIA H100 80GB HBM3", length); return SUCCESS; }
int nvmlDeviceGetMigMode(Device *d, unsigned *now, unsigned *pending) { *now = *pending = mig(d); return SUCCESS; }
int nvmlDeviceGetEccMode(Device *d, unsigned *now, unsigned *pending) { *now = *pending = 1; return SUCCESS; }
int nvmlDeviceGetEnforcedPowerLimit(Device *d, unsigned *mw) { *mw = 1000 * setting("FAKE_NVML_CAP", 700); return SUCCESS; }
int nvmlDeviceGetPowerManagementDefaultLimit(Device *d, unsigned *mw) { *mw = 700000; return SUCCESS; }
int nvmlDeviceGetMaxClockInfo(Device *d, unsigned kind, unsigned *mhz) { *mhz = 1980; return SUCCESS; }
int nvmlDeviceGetNvLinkState(Device *d, unsigned link, unsigned *on) { *on = 1; return link < 18 ? SUCCESS : NOT_SUPPORTED; }
int nvmlDeviceGetP2PStatus(Device *a, Device *b, unsigned what, unsigned *status) { *status = 0; return SUCCESS; }

int nvmlDeviceGetTotalEnergyConsumption(Device *d, unsigned long long *mj) {
  struct timespec now;
  long long step = setting("FAKE_NVML_STEP_MS", 20);
  if (d->instance || mig(d)) return NOT_SUPPORTED;
  clock_gettime(CLOCK_MONOTONIC, &now);
  *mj = (now.tv_sec * 1000LL + now.tv_nsec / 1000000) / step * step * (300 + 100 * asked(d)->number);
  return SUCCESS;
}
int nvmlDeviceGetPowerUsage(Device *d, unsigned *mw) { *mw = 1000 * (300 + 100 * asked(d)->number); return SUCCESS; }
int nvmlDeviceGetClockInfo(Device *d, unsigned kind, unsigned *mhz) {
  *mhz = kind == 2 ? 2619 : ++asked(d)->calls % 2 ? 1980 : 1500; /* 1: SM, 2: memory */
  return SUCCESS;
}
int nvmlDeviceGetTemperature(Device *d, unsigned sensor, unsigned *c) { *c = 50 + asked(d)->calls % 10; return SUCCESS; }
int nvmlDeviceGetMemoryInfo(Device *d, Memory *memory) {
  unsigned long long gib = 1ULL << 30;
  memory->total = 80 * gib;
  memory->used = d->instance ? gib : (20 + asked(d)->calls % 4) * gib;
  memory->free = memory->total - memory->used;
  return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(Device *d, Utilization *use) {
  use->gpu = asked(d)->calls % 2 ? 100 : 80;
  use->memory = 40;
  return SUCCESS;
}
int nvmlDeviceGetCurrentClocksEventReasons(Device *d, unsigned long long *bits) {
  *bits = setting("FAKE_NVML_REASONS", 0);
  return SUCCESS;
}
