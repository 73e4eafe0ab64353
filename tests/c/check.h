/* SPDX-License-Identifier: Apache-2.0 */
/* The C tests' whole framework: a failed CHECK names its place and ends the
 * program; RUN names each test that passed. */
#ifndef LP_TESTS_CHECK_H
#define LP_TESTS_CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: failed: %s (errno %d)\n", __FILE__, __LINE__,            \
                          #condition, errno);                                                      \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_RUN(test)                                                                            \
    do {                                                                                           \
        test();                                                                                    \
        (void)printf("ok %s\n", #test);                                                            \
    } while (0)

#endif
