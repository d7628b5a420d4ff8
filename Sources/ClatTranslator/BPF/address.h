/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* IPv6 addresses as numbers, and which of them stand for IPv4 addresses (RFC 6052 section 2.2). */
#pragma once
#include <linux/in6.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "clat.h"

static __always_inline struct clat_address address(const struct in6_addr *a)
{
	return (struct clat_address){
		.high = (__u64)bpf_ntohl(a->s6_addr32[0]) << 32 | bpf_ntohl(a->s6_addr32[1]),
		.low = (__u64)bpf_ntohl(a->s6_addr32[2]) << 32 | bpf_ntohl(a->s6_addr32[3]),
	};
}

static __always_inline struct in6_addr ipv6_address(__u64 high, __u64 low)
{
	return (struct in6_addr){
		.s6_addr32 = { bpf_htonl(high >> 32), bpf_htonl(high), bpf_htonl(low >> 32), bpf_htonl(low) },
	};
}

static __always_inline bool same(struct clat_address a, struct clat_address b)
{
	return a.high == b.high && a.low == b.low;
}

/*
 * Whether the address is an IPv4 address behind the PREF64. A short prefix may hold native addresses as well: those
 * whose octet 8 is not zero (RFC 6052 section 2.2), and all of the CLAT address's own /64.
 */
static __always_inline bool inside(const struct clat_mapping *m, struct clat_address a)
{
	if ((a.high ^ m->prefix.high) & m->mask.high || (a.low ^ m->prefix.low) & m->mask.low)
		return false;
	return m->length > 64 || (a.low >> 56 == 0 && a.high != m->ipv6.high);
}

/* RFC 6052 section 2.2: the IPv4 address follows the prefix and steps over octet 8. */
static __always_inline struct in6_addr embed(const struct clat_mapping *m, __u32 ipv4)
{
	__u64 high = m->prefix.high, low = m->prefix.low;

	if (m->length > 64) {
		low |= ipv4;
	} else {
		__u32 past = (m->length - 32) & 63; /* bits of it past octet 8 */

		high |= (__u64)ipv4 >> past;
		low = (__u64)ipv4 << (56 - past) & 0x00ffffffffffffff;
	}
	return ipv6_address(high, low);
}

static __always_inline __u32 extract(const struct clat_mapping *m, struct clat_address a)
{
	__u32 past = (m->length - 32) & 63;

	return m->length > 64 ? a.low : a.high << past | a.low >> (56 - past);
}
