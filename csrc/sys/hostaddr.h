/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The address under which containers reach their host.
 */
#ifndef LP_SYS_HOSTADDR_H
#define LP_SYS_HOSTADDR_H

#include "base/error.h"

#include <stddef.h>

/* Writes the first IPv4 address of this network namespace that is not a
 * loopback one, in the kernel's order, as text; "" where there is none.  `size`
 * is that of `text`, at least INET_ADDRSTRLEN.  Any thread; a few microseconds
 * whatever the number of interfaces.  LP_ESYSTEM where the kernel refuses. */
int lp_hostaddr_first(char *text, size_t size, struct lp_error *err);

/* 4 or 6 where the text is an IP address of that family, without a zone; or 0. */
int lp_hostaddr_family(const char *text);

#endif
