/* A libnvidia-ml.so.1 for machines without a graphics card: what it answers follows a power model
 * whose truth is known, so that programs that read NVML can be rehearsed and tested.
 *
 * Compiled by nvml_library.build_nvml(folder), or by hand:
 *
 *   cc -shared -fPIC -O2 -Wl,-soname,libnvidia-ml.so.1 -o FOLDER/libnvidia-ml.so.1 nvml.c
 *   JOULEMAP_NVML=settings.txt LD_LIBRARY_PATH=FOLDER python -m joulemap ...
 *
 * The settings are lines `name=value` and are read again at every call, so that a fault can be
 * set while a program runs. Names with `gpuN.` are one card's, without it all cards'.
 *
 *   gpus=2                 how many cards
 *   init=0                 answer of nvmlInit; 9 is DRIVER_NOT_LOADED, 4 NO_PERMISSION
 *   idle_w=20 active_w=120 power when off and on
 *   period_s=1 duty=0.5    how long on and off take together, and the share of it that is on
 *   pid=0 joules_per_cpu_s=0   a process whose CPU time takes energy besides
 *   energy_step_s=0.1      how often the energy counter is brought up to date
 *   power_step_s=0.1       how often the power is
 *   window_s=1             length of time over which the average power is taken before that update
 *   energy=0 power=0 instant=0 name=0 limit=0   answers of these queries; 3 is NOT_SUPPORTED,
 *                          4 NO_PERMISSION, 15 GPU_IS_LOST, 999 UNKNOWN
 *   mig=-1                 whether the card is divided into instances: 0, 1; -1 is NOT_SUPPORTED
 *   energy_offset_mj=1000000   what the counter holds at time 0 of CLOCK_MONOTONIC
 *   energy_mj= power_mw=   shown instead of the model
 *   freeze=0               1: time stands still for the energy counter
 *
 * Truth of a card without a process: energy since time 0 of CLOCK_MONOTONIC in J is
 * idle_w * t + (active_w - idle_w) * (whole periods * duty * period_s + min(rest, duty * period_s)).
 */

#define _GNU_SOURCE
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, TOO_SMALL = 7 };
enum { MAX_CARDS = 8, UNSIGNED_INT = 1, UNSIGNED_LONG_LONG = 3 };
enum { FIELD_ENERGY = 83, FIELD_AVERAGE = 185, FIELD_INSTANT = 186 };

typedef struct card {
    int index;
    /* CPU time of the process at the last two readings, to place it between them. */
    double earlier_s, earlier_cpu_s, later_s, later_cpu_s;
    double frozen_s;
    /* What the counter showed last, and of which update: a later look at the process would tell the
     * same moment a little otherwise. */
    double shown_s, shown_mj;
} card;

typedef struct {
    unsigned int field, scope;
    int64_t timestamp, latency_us;
    unsigned int type, answer;
    union {
        double d;
        unsigned int u;
        unsigned long long ull;
    } value;
} field_value;

static card cards[MAX_CARDS];
static int num_users;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Returns the last value of `gpuN.name` in the settings, else that of `name`, else `otherwise`. */
static double setting(int index, const char *name, double otherwise) {
    char own[64], line[256];
    const char *path = getenv("JOULEMAP_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    double common = otherwise, result = otherwise;
    int has_own = 0;
    if (!file) return otherwise;
    snprintf(own, sizeof own, "gpu%d.%s", index, name);
    while (fgets(line, sizeof line, file)) {
        char *equals = strchr(line, '=');
        if (!equals || line[0] == '#') continue;
        *equals = 0;
        if (!strcmp(line, name)) common = atof(equals + 1);
        if (!strcmp(line, own)) result = atof(equals + 1), has_own = 1;
    }
    fclose(file);
    return has_own ? result : common;
}

static double process_cpu_s(int pid) {
    clockid_t clock;
    struct timespec used;
    if (pid <= 0 || clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &used)) return 0;
    return (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
}

static double wave_j(int index, double t) {
    double idle = setting(index, "idle_w", 20), active = setting(index, "active_w", 120);
    double period = setting(index, "period_s", 1), on = setting(index, "duty", 0.5) * period;
    double whole = floor(t / period);
    return idle * t + (active - idle) * (whole * on + fmin(t - whole * period, on));
}

/* Returns the CPU time at a moment not long ago, in a straight line between two readings. */
static double cpu_at_s(const card *c, double t) {
    double span = c->later_s - c->earlier_s;
    if (span <= 0) return c->later_cpu_s;
    return c->earlier_cpu_s + (c->later_cpu_s - c->earlier_cpu_s) * (t - c->earlier_s) / span;
}

static void look_at_process(card *c, double t) {
    int pid = (int)setting(c->index, "pid", 0);
    if (pid <= 0 || t - c->later_s < 0.01) return;
    c->earlier_s = c->later_s, c->earlier_cpu_s = c->later_cpu_s;
    c->later_s = t, c->later_cpu_s = process_cpu_s(pid);
    if (c->earlier_s == 0) c->earlier_s = t - 1e-9, c->earlier_cpu_s = c->later_cpu_s;
}

static double energy_j(card *c, double t) {
    double joules = wave_j(c->index, t);
    if (setting(c->index, "pid", 0) > 0)
        joules += setting(c->index, "joules_per_cpu_s", 0) * cpu_at_s(c, t);
    return joules;
}

/* Returns the moment of the last update of something that is updated every `step` seconds. */
static double updated(double t, double step) {
    return step > 0 ? floor(t / step) * step : t;
}

static unsigned int answer_of(const card *c, const char *query) {
    if (!num_users) return UNINITIALIZED;
    if (!c || c < cards || c >= cards + MAX_CARDS) return INVALID_ARGUMENT;
    return (unsigned int)setting(c->index, query, OK);
}

static unsigned long long millijoules(card *c, double t) {
    return (unsigned long long)(energy_j(c, t) * 1e3 + setting(c->index, "energy_offset_mj", 1e6));
}

static unsigned long long energy_mj(card *c) {
    double t = now_s(), shown = setting(c->index, "energy_mj", -1);
    look_at_process(c, t);
    if (shown >= 1.8e19) return UINT64_MAX;
    if (shown >= 0) return (unsigned long long)shown;
    if (setting(c->index, "freeze", 0) > 0) {
        if (c->frozen_s == 0) c->frozen_s = t;
        t = c->frozen_s;
    } else {
        c->frozen_s = 0;
    }
    t = updated(t, setting(c->index, "energy_step_s", 0.1));
    if (setting(c->index, "pid", 0) <= 0) return millijoules(c, t);
    if (t != c->shown_s) c->shown_mj = fmax(c->shown_mj, millijoules(c, t)), c->shown_s = t;
    return (unsigned long long)c->shown_mj;
}

static unsigned int power_mw(card *c, double window) {
    double t = now_s(), shown = setting(c->index, "power_mw", -1);
    look_at_process(c, t);
    if (shown >= 0) return (unsigned int)shown;
    t = updated(t, setting(c->index, "power_step_s", 0.1));
    return (unsigned int)((energy_j(c, t) - energy_j(c, t - window)) / window * 1e3 + 0.5);
}

static unsigned int put(char *text, unsigned int length, const char *value) {
    if (!text || strlen(value) + 1 > length) return TOO_SMALL;
    strcpy(text, value);
    return OK;
}

unsigned int nvmlInitWithFlags(unsigned int flags) {
    unsigned int answer = (unsigned int)setting(-1, "init", OK);
    (void)flags;
    /* Whoever comes first finds cards that remember nothing of who was there before. */
    if (answer == OK && num_users++ == 0) memset(cards, 0, sizeof cards);
    return answer;
}

unsigned int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

unsigned int nvmlShutdown(void) {
    if (!num_users) return UNINITIALIZED;
    num_users--;
    return OK;
}

/* How many users it has: for tests that nothing is left open. */
int joulemap_nvml_users(void) { return num_users; }

const char *nvmlErrorString(unsigned int answer) {
    switch (answer) {
    case OK: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case NOT_SUPPORTED: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    default: return "Unknown Error";
    }
}

unsigned int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    return num_users ? put(version, length, "0.0-simulated") : UNINITIALIZED;
}

unsigned int nvmlDeviceGetCount_v2(unsigned int *count) {
    double cards_there = setting(-1, "gpus", 1);
    if (!num_users) return UNINITIALIZED;
    *count = (unsigned int)fmax(0, fmin(MAX_CARDS, cards_there));
    return OK;
}

unsigned int nvmlDeviceGetHandleByIndex_v2(unsigned int index, card **device) {
    unsigned int count = 0, answer = nvmlDeviceGetCount_v2(&count);
    if (answer != OK) return answer;
    if (index >= count) return INVALID_ARGUMENT;
    cards[index].index = (int)index;
    answer = (unsigned int)setting((int)index, "handle", OK);
    *device = &cards[index];
    return answer;
}

unsigned int nvmlDeviceGetName(card *device, char *name, unsigned int length) {
    unsigned int answer = answer_of(device, "name");
    return answer == OK ? put(name, length, "Simulated GPU") : answer;
}

unsigned int nvmlDeviceGetUUID(card *device, char *uuid, unsigned int length) {
    char text[64];
    unsigned int answer = answer_of(device, "uuid");
    if (answer != OK) return answer;
    snprintf(text, sizeof text, "GPU-00000000-0000-0000-0000-%012d", device->index);
    return put(uuid, length, text);
}

unsigned int nvmlDeviceGetMigMode(card *device, unsigned int *current, unsigned int *pending) {
    unsigned int answer = answer_of(device, "handle");
    double mode = answer == OK ? setting(device->index, "mig", -1) : -1;
    if (answer != OK || mode < 0) return answer == OK ? NOT_SUPPORTED : answer;
    *current = *pending = (unsigned int)mode;
    return OK;
}

unsigned int nvmlDeviceGetTotalEnergyConsumption(card *device, unsigned long long *mj) {
    unsigned int answer = answer_of(device, "energy");
    if (answer == OK) *mj = energy_mj(device);
    return answer;
}

unsigned int nvmlDeviceGetPowerUsage(card *device, unsigned int *mw) {
    unsigned int answer = answer_of(device, "power");
    if (answer == OK) *mw = power_mw(device, setting(device->index, "window_s", 1));
    return answer;
}

unsigned int nvmlDeviceGetFieldValues(card *device, int count, field_value *values) {
    unsigned int answer = answer_of(device, "fields");
    if (answer != OK) return answer;
    for (int i = 0; i < count; i++) {
        field_value *v = &values[i];
        v->timestamp = (int64_t)(now_s() * 1e6);
        v->latency_us = 0;
        v->type = UNSIGNED_INT;
        if (v->field == FIELD_INSTANT) {
            v->answer = answer_of(device, "instant");
            if (v->answer == OK) v->value.u = power_mw(device, 1e-3);
        } else if (v->field == FIELD_AVERAGE) {
            v->answer = answer_of(device, "power");
            if (v->answer == OK) v->value.u = power_mw(device, setting(device->index, "window_s", 1));
        } else if (v->field == FIELD_ENERGY) {
            v->type = UNSIGNED_LONG_LONG;
            v->answer = answer_of(device, "energy");
            if (v->answer == OK) v->value.ull = energy_mj(device);
        } else {
            v->answer = NOT_SUPPORTED;
        }
    }
    return OK;
}

unsigned int nvmlDeviceGetPowerManagementLimitConstraints(card *device, unsigned int *lowest_mw,
                                                          unsigned int *highest_mw) {
    unsigned int answer = answer_of(device, "limit");
    if (answer == OK) *lowest_mw = 100000, *highest_mw = 300000;
    return answer;
}

#ifdef __cplusplus
}
#endif
