/* The list of solvers: solvers.def holds one line a solver, the first is the default. */
#include "sched/sched.h"

#include <string.h>

#define SOLVER(s) extern const struct solver solver_##s;
#include "sched/solvers.def"
#undef SOLVER

#define SOLVER(s) &solver_##s,
static const struct solver *const solvers[] = {
#include "sched/solvers.def"
};
#undef SOLVER

int solver_count(void) { return (int)ARRAY_LEN(solvers); }

const struct solver *solver_at(int i) { return i >= 0 && i < solver_count() ? solvers[i] : NULL; }

const struct solver *solver_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(solvers); i++)
        if (strcmp(solvers[i]->name, name) == 0) return solvers[i];
    return NULL;
}
