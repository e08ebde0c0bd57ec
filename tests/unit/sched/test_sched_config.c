/* scheduler_config.json: what is read, and what is refused by name. */
#include "sched/sched.h"
#include "tests/check.h"
#include "tests/golden/tiny.h"

static char path[300];

static int read_text(struct sched_config *c, const char *text, struct err *e)
{
    tiny_write_text(path, text);
    return sched_config_read(c, path, e);
}

#define UNIPC "{\"_class_name\":\"UniPCMultistepScheduler\",\"use_flow_sigmas\":true,"
#define FLOW UNIPC "\"prediction_type\":\"flow_prediction\""

static void accepted(void)
{
    struct sched_config c;
    struct err e;
    CHECK_OK(
        sched_config_read(&c, TEST_SOURCE_DIR "/assets/emoji/scheduler/scheduler_config.json", &e));
    CHECK(solver_find(c.solver) != NULL && c.flow_shift > 0);
    CHECK_OK(read_text(&c, FLOW ",\"flow_shift\":5.0,\"solver_type\":\"midpoint\"}", &e));
    CHECK_STR(c.solver, "unipc");
    CHECK_STR(c.class_name, "UniPCMultistepScheduler");
    CHECK(c.flow_shift == 5 && c.num_train_timesteps == 1000);
    CHECK_OK(read_text(&c, FLOW ",\"shift\":7}", &e));
    CHECK(c.flow_shift == 7);
    CHECK_OK(read_text(&c, FLOW "}", &e));
    CHECK(c.flow_shift == 1);
    CHECK_OK(
        read_text(&c, "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"shift\":3.5}", &e));
    CHECK_STR(c.solver, "euler");
    CHECK(c.flow_shift == 3.5);
    CHECK_OK(read_text(&c,
                       "{\"_class_name\":\"DPMSolverMultistepScheduler\",\"use_flow_sigmas\":true,"
                       "\"prediction_type\":\"flow_prediction\",\"algorithm_type\":\"dpmsolver++\","
                       "\"solver_type\":\"midpoint\",\"flow_shift\":2}",
                       &e));
    CHECK_STR(c.solver, "dpmpp");
}

static void refused(void)
{
    static const struct {
        const char *text, *words; /* that the message must hold */
    } cases[] = {
        {"", "JSON"},
        {"[]", "no JSON object"},
        {"{}", "_class_name is absent"},
        {"{\"_class_name\":7}", "_class_name"},
        {"{\"_class_name\":\"DDIMScheduler\"}", "_class_name is DDIMScheduler, wanted UniPC"},
        {"{\"_class_name\":\"UniPCMultistepScheduler\"}", "use_flow_sigmas is absent"},
        {UNIPC "\"prediction_type\":\"epsilon\"}", "prediction_type is \"epsilon\""},
        {UNIPC "\"prediction_type\":\"flow_prediction\\\"|\\\"x\"}", "prediction_type"},
        {FLOW ",\"solver_order\":3}", "solver_order is 3, only 2"},
        {FLOW ",\"solver_type\":\"bh1\"}", "solver_type is \"bh1\", only \"bh2\" is"},
        {FLOW ",\"predict_x0\":false}", "predict_x0 is false"},
        {FLOW ",\"lower_order_final\":false}", "lower_order_final"},
        {FLOW ",\"final_sigmas_type\":\"sigma_min\"}", "final_sigmas_type"},
        {FLOW ",\"disable_corrector\":[0,1]}", "disable_corrector is [...]"},
        {FLOW ",\"solver_p\":{}}", "solver_p is {...}"},
        {FLOW ",\"thresholding\":true}", "thresholding is true"},
        {FLOW ",\"use_dynamic_shifting\":true}", "use_dynamic_shifting"},
        {FLOW ",\"shift_terminal\":0.1}", "shift_terminal is 0.1, only null"},
        {FLOW ",\"use_karras_sigmas\":true}", "use_karras_sigmas"},
        {FLOW ",\"use_exponential_sigmas\":true}", "use_exponential_sigmas"},
        {FLOW ",\"use_beta_sigmas\":true}", "use_beta_sigmas"},
        {FLOW ",\"use_beta_sigmas\":\"false\"}", "use_beta_sigmas is \"false\""},
        {FLOW ",\"num_train_timesteps\":500}", "num_train_timesteps"},
        {FLOW ",\"flow_shift\":0}", "flow_shift"},
        {FLOW ",\"flow_shift\":-3}", "flow_shift"},
        {FLOW ",\"flow_shift\":1e300}", "flow_shift"},
        {FLOW ",\"flow_shift\":\"3\"}", "flow_shift"},
        {"{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"stochastic_sampling\":true}",
         "stochastic_sampling"},
        {"{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"invert_sigmas\":true}",
         "invert_sigmas"},
        {"{\"_class_name\":\"DPMSolverMultistepScheduler\",\"use_flow_sigmas\":true,"
         "\"prediction_type\":\"flow_prediction\",\"algorithm_type\":\"sde-dpmsolver++\"}",
         "algorithm_type is \"sde-dpmsolver++\""},
    };
    struct sched_config c;
    struct err e;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int rc = read_text(&c, cases[i].text, &e);
        CHECK_MSG(rc < 0 && e.code == ERR_INPUT, "%s: accepted", cases[i].text);
        if (rc == 0) continue;
        CHECK_MSG(strstr(e.msg, path) != NULL, "no path in: %s", e.msg);
        CHECK_MSG(strstr(e.msg, cases[i].words) != NULL, "no '%s' in: %s", cases[i].words, e.msg);
    }
    CHECK(sched_config_read(&c, "/nonexistent/scheduler_config.json", &e) < 0);
    CHECK(e.code == ERR_INPUT);
}

int main(void)
{
    char dir[256];
    tiny_temp(dir);
    snprintf(path, sizeof path, "%s/scheduler_config.json", dir);
    accepted();
    refused();
    tiny_remove(dir);
    return TEST_RESULT();
}
