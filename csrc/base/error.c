/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void error_format(struct lp_error *err, const char *format, va_list args)
{
    int n = vsnprintf(err->message, sizeof err->message, format, args);

    if (n < 0)
        err->message[0] = '\0';
}

int lp_fail(struct lp_error *err, int code, const char *format, ...)
{
    va_list args;

    if (err == NULL)
        return code;
    err->code = code;
    err->sys_errno = 0;
    va_start(args, format);
    error_format(err, format, args);
    va_end(args);
    return code;
}

int lp_fail_errno(struct lp_error *err, const char *format, ...)
{
    int saved = errno;
    int code = saved == ENOMEM ? LP_ENOMEM : LP_ESYSTEM;
    char text[128];
    size_t used;
    va_list args;

    if (err == NULL)
        return code;
    err->code = code;
    err->sys_errno = saved;
    va_start(args, format);
    error_format(err, format, args);
    va_end(args);
    used = strlen(err->message);
    /* The GNU strerror_r: it may return a string of its own. */
    (void)snprintf(err->message + used, sizeof err->message - used, ": %s",
                   strerror_r(saved, text, sizeof text));
    return code;
}
