/* SPDX-License-Identifier: Apache-2.0 */
#include "base/failpoint.h"

#ifdef LP_FAILPOINTS

#include <string.h>

/* The one mutable static of the project, in test builds only. */
static struct {
    const char *name;
    int error_number;
    unsigned skip;
} points[16];

int lp_failpoint(const char *name)
{
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        if (points[i].name == NULL || strcmp(points[i].name, name) != 0)
            continue;
        if (points[i].skip > 0) {
            points[i].skip--;
            return 0;
        }
        return points[i].error_number;
    }
    return 0;
}

void lp_failpoint_set(const char *name, int error_number, unsigned skip)
{
    size_t free_slot = sizeof points / sizeof points[0];

    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        if (points[i].name == NULL) {
            if (free_slot == sizeof points / sizeof points[0])
                free_slot = i;
        } else if (strcmp(points[i].name, name) == 0) {
            free_slot = i;
            break;
        }
    }
    if (free_slot == sizeof points / sizeof points[0])
        return;
    points[free_slot].name = error_number != 0 ? name : NULL;
    points[free_slot].error_number = error_number;
    points[free_slot].skip = skip;
}

#endif
