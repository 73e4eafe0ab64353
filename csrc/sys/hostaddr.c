/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One dump of IPv4 addresses by rtnetlink, read until the first that counts.
 * getifaddrs(3) would list every interface first, of which a host with many
 * containers has thousands.
 */
#include "sys/hostaddr.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

/* The kernel fills one message of a dump up to the reader's buffer. */
#define DUMP_MOST 16384

/* The interface's own address: of a point-to-point one IFA_ADDRESS is the peer's. */
static bool hostaddr_of(struct nlmsghdr *header, struct in_addr *address)
{
    struct ifaddrmsg *message = NLMSG_DATA(header);
    unsigned left = (unsigned)IFA_PAYLOAD(header);
    bool found = false;

    for (struct rtattr *at = IFA_RTA(message); RTA_OK(at, left); at = RTA_NEXT(at, left)) {
        if (RTA_PAYLOAD(at) < sizeof *address)
            continue;
        if (at->rta_type == IFA_LOCAL || (at->rta_type == IFA_ADDRESS && !found)) {
            memcpy(address, RTA_DATA(at), sizeof *address);
            found = true;
        }
    }
    return found && (ntohl(address->s_addr) >> IN_CLASSA_NSHIFT) != IN_LOOPBACKNET;
}

/* 1: found; 0: read on; -1: that was all, or errno. */
static int hostaddr_in(struct nlmsghdr *header, ssize_t got, struct in_addr *address)
{
    unsigned left = (unsigned)got;

    for (; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
        if (header->nlmsg_type == NLMSG_DONE) {
            errno = 0;
            return -1;
        }
        if (header->nlmsg_type == NLMSG_ERROR) {
            errno = -((struct nlmsgerr *)NLMSG_DATA(header))->error;
            return -1;
        }
        if (header->nlmsg_type == RTM_NEWADDR && hostaddr_of(header, address))
            return 1;
    }
    return 0;
}

int lp_hostaddr_first(char *text, size_t size, struct lp_error *err)
{
    struct {
        struct nlmsghdr header;
        struct ifaddrmsg message;
    } request = {
        .header = {.nlmsg_len = sizeof request,
                   .nlmsg_type = RTM_GETADDR,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .message = {.ifa_family = AF_INET},
    };
    _Alignas(struct nlmsghdr) char reply[DUMP_MOST];
    LP_CLOSE int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct in_addr address;
    ssize_t got;
    int found = 0;

    text[0] = '\0';
    if (sock < 0 || LP_RETRY(send(sock, &request, sizeof request, 0)) < 0)
        return lp_fail_errno(err, "cannot ask for the host's addresses");
    while (found == 0) {
        got = LP_RETRY(recv(sock, reply, sizeof reply, 0));
        found = got < 0 ? -1 : hostaddr_in((struct nlmsghdr *)reply, got, &address);
    }
    if (found < 0)
        return errno == 0 ? 0 : lp_fail_errno(err, "cannot read the host's addresses");
    if (inet_ntop(AF_INET, &address, text, (socklen_t)size) == NULL)
        return lp_fail_errno(err, "cannot write the host's address");
    return 0;
}

int lp_hostaddr_family(const char *text)
{
    struct in6_addr address;

    if (inet_pton(AF_INET, text, &address) == 1)
        return 4;
    return inet_pton(AF_INET6, text, &address) == 1 ? 6 : 0;
}
