/* One generation, checked and chosen: settings of the public API → what the rooms below want.
 *
 * Everything that can be refused without reading weights is refused here, so that --plan and a real
 * run say the same. Owner: run_init → run_fini. Errors: ERR_USAGE with the setting's flag. */
#ifndef DITGEN_APP_RUN_H
#define DITGEN_APP_RUN_H

#include "app/lib/calibration.h"
#include "app/lib/defaults.h"
#include "app/lib/ditgen.h"
#include "app/lib/error_budget.h"
#include "app/lib/settings.h"
#include "model/model.h"
#include "sched/sched.h"

struct ditgen { /* the public handle */
    struct model_info info;
    struct defaults defaults;
    struct sched_config scheduler;
    struct cpu cpu;
    struct device *device; /* of the last run; NULL: none yet */
    char device_name[16]; /* what it was asked for by */
    struct model_store store; /* what stays on it */
    size_t device_peak
        [DITGEN_PHASES]; /* of the card in the last run, all that it took; 0: not known */
    int probed_threads; /* 0: not probed yet */
    double probed_flops[4]; /* by enum precision, with the threads of the last probe; 0: not yet */
    int probed_flops_threads;
    const struct dit_watch *watch; /* who calibrates, or NULL */
    const struct attn_watch
        *attn_watch; /* who measures attention on a run's own q, k, v, or NULL */
    const struct budget *budget; /* instead of a calibration: who makes one, or NULL */
    struct budget_spent *budget_spent; /* where that is told what a run came to, or NULL */
    char *plan_attention; /* text of the last plan, heap */
};

/* The public error is the house's with plain types; always -1. */
int give_error(struct ditgen_error *out, const struct err *e);

struct run {
    struct model_clip clip;
    struct ditgen_settings *settings; /* resolved; params borrows from it */
    struct model_params params;
    struct attn_forecast forecast;
    struct dit_cache_forecast cache;
    struct calibration calibration; /* what params.cache borrows from */
    struct error_budget calibrated; /* what params.attn.budget borrows from */
    struct budget budget;
    const struct solver *solver;
    struct schedule schedule;
    double guidance_scale, flow_shift;
    bool truncate_frames;
    char lora[4096 + 64];
};

/* The device of these settings, opened when it is another than the last run's. */
int run_device(struct ditgen *d, const char *name, struct err *e);
void run_device_close(struct ditgen *d);
int run_init(struct run *r, struct ditgen *d, const struct ditgen_settings *s,
             const struct log *log, struct err *e);
void run_fini(struct run *r);

#endif
