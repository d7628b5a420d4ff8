/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The kernel path: plain TCP, UDP with a checksum, and echo, translated as the translator would (RFC 7915), super-packets
 * included. Whatever is not plain is left as it came, and goes to the translator: TC_ACT_UNSPEC says so.
 *
 * Checksums change by the difference of the pseudo-headers, those too that the device is to finish. The kernel's own sum
 * over the packet (CHECKSUM_COMPLETE) stays right as well: each store either recomputes it or is made up for by the
 * checksum beside it.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "address.h"
#include "clat.h"

/* AF_INET6, which no header for programs has. */
#define ADDRESS_FAMILY_IPV6 10

/* linux/icmp.h draws in the C library, which has no headers for this target: RFC 792. */
#define ICMP_ECHOREPLY 0
#define ICMP_ECHO 8
/* linux/ip.h keeps them from user space: RFC 791 section 3.1. */
#define IP_DF 0x4000
#define IP_MF_AND_OFFSET 0x3fff
#define IP_VERSION_AND_LENGTH 0x45 /* and no options */
/* Larger results must not be fragmented behind us (RFC 7915 section 5.1). */
#define CLAT_DF_FROM 1261

/* The parts of a transport header that translation needs. */
struct transport {
	__u32 header;   /* octets */
	__u32 checksum; /* its offset in the header */
	__u64 flags;    /* of bpf_l4_csum_replace */
	enum clat_protocol counted_as;
	__u16 udp_checksum; /* as it came; 0 of other protocols */
	__be16 old_type, new_type; /* ICMP type and code */
	__u8 protocol;             /* of the result */
};

static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

static __always_inline __u64 words(const struct in6_addr *a)
{
	return (__u64)a->s6_addr32[0] + a->s6_addr32[1] + a->s6_addr32[2] + a->s6_addr32[3];
}

static __always_inline __u16 fold16(__u64 sum)
{
	__u32 half = fold(sum);

	half = (half & 0xffff) + (half >> 16);
	return (half & 0xffff) + (half >> 16);
}

static __always_inline __u16 header_checksum(const struct iphdr *ip)
{
	const __u32 *word = (const void *)ip;

	return ~fold16((__u64)word[0] + word[1] + word[2] + word[3] + word[4]);
}

/* Reads a plain transport header; false where it is not plain. `length` is that of the IP payload. */
static __always_inline bool read_transport(struct __sk_buff *skb, __u32 offset, __u32 length, __u8 protocol,
					   struct transport *t)
{
	*t = (struct transport){ .flags = BPF_F_PSEUDO_HDR, .protocol = protocol };
	switch (protocol) {
	case IPPROTO_TCP: {
		struct tcphdr tcp;

		if (length < sizeof(tcp) || bpf_skb_load_bytes(skb, offset, &tcp, sizeof(tcp)))
			return false;
		t->header = 4 * tcp.doff;
		t->checksum = offsetof(struct tcphdr, check);
		t->counted_as = CLAT_TCP;
		return t->header >= sizeof(tcp);
	}
	case IPPROTO_UDP: {
		struct udphdr udp;

		if (length < sizeof(udp) || bpf_skb_load_bytes(skb, offset, &udp, sizeof(udp)))
			return false;
		t->header = sizeof(udp);
		t->checksum = offsetof(struct udphdr, check);
		t->flags |= BPF_F_MARK_MANGLED_0;
		t->counted_as = CLAT_UDP;
		t->udp_checksum = udp.check;
		return udp.check && bpf_ntohs(udp.len) == length;
	}
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6: {
		bool v4 = protocol == IPPROTO_ICMP;
		struct icmp6hdr icmp; /* RFC 792 has the same fields */

		if (length < sizeof(icmp) || bpf_skb_load_bytes(skb, offset, &icmp, sizeof(icmp)))
			return false;
		if (icmp.icmp6_code || skb->gso_size)
			return false;
		t->header = sizeof(icmp);
		t->checksum = offsetof(struct icmp6hdr, icmp6_cksum);
		t->counted_as = CLAT_ICMP;
		t->protocol = v4 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
		t->old_type = bpf_htons(icmp.icmp6_type << 8);
		if (icmp.icmp6_type == (v4 ? ICMP_ECHO : ICMPV6_ECHO_REQUEST))
			t->new_type = bpf_htons((v4 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO) << 8);
		else if (icmp.icmp6_type == (v4 ? ICMP_ECHOREPLY : ICMPV6_ECHO_REPLY))
			t->new_type = bpf_htons((v4 ? ICMPV6_ECHO_REPLY : ICMP_ECHOREPLY) << 8);
		else
			return false;
		return true;
	}
	}
	return false;
}

/* Octets of the largest packet on the wire, with an IP header of that length: a super-packet's segments count. */
static __always_inline __u32 wire_length(struct __sk_buff *skb, __u32 ip_header, __u32 length, const struct transport *t)
{
	return ip_header + (skb->gso_size ? skb->gso_size + t->header : length);
}

/*
 * Moves the checksum from one pseudo-header to the other, and the ICMP type with it. `pseudo` is the sum of the old one.
 *
 * A checksum that a device is to finish holds that sum so far. bpf_l4_csum_replace takes every one for such as long as
 * there is something to finish in the packet: in a tunnel that is the inner packet's, while the UDP checksum around it is
 * finished already (the kernel's local checksum offload).
 */
static __always_inline bool rewrite_transport(struct __sk_buff *skb, __u32 offset, __u32 pseudo, __u32 difference,
					      const struct transport *t)
{
	if (t->udp_checksum && t->udp_checksum != fold16(pseudo)) {
		/* 0 would mean that there is none (RFC 768) */
		__u16 sum = ~fold16((__u64)(__u16)~t->udp_checksum + difference);
		__u16 checksum = sum ?: 0xffff;

		return !bpf_skb_store_bytes(skb, offset + t->checksum, &checksum, sizeof(checksum), BPF_F_RECOMPUTE_CSUM);
	}
	if (bpf_l4_csum_replace(skb, offset + t->checksum, 0, difference, t->flags))
		return false;
	return t->counted_as != CLAT_ICMP ||
	       (!bpf_l4_csum_replace(skb, offset + t->checksum, t->old_type, t->new_type, 2) &&
		!bpf_skb_store_bytes(skb, offset, &t->new_type, 2, 0));
}

static __always_inline void count(struct clat_counts *n, enum clat_direction d, const struct transport *t, __u32 length)
{
	__u32 protocol = t->counted_as;

	barrier_var(protocol); /* or the compiler, which knows the bound, leaves out what the verifier must see */
	if (protocol < CLAT_PROTOCOLS)
		n->packets[d][protocol]++;
	n->octets[d] += length;
}

/*
 * Redirects to the uplink what goes to a PREF64; the neighbour table fills the Ethernet addresses in. A router that is
 * named spares the kernel the look-up of a route for each packet: a sixth more small ones a second.
 */
static __always_inline int to_pref64(const struct clat_config *c)
{
	struct in6_addr next_hop = ipv6_address(c->next_hop.high, c->next_hop.low);
	struct bpf_redir_neigh router = { .nh_family = ADDRESS_FAMILY_IPV6 };

	if (!c->next_hop.high)
		return bpf_redirect_neigh(c->uplink, NULL, 0, 0);
	__builtin_memcpy(router.ipv6_nh, &next_hop, sizeof(next_hop));
	return bpf_redirect_neigh(c->uplink, &router, sizeof(router), 0);
}

/* The packet is lost. */
static __always_inline int fail(struct clat_counts *n)
{
	n->failed++;
	return TC_ACT_SHOT;
}

/* The packet is as it came. */
static __always_inline int pass(struct clat_counts *n, enum clat_direction d, enum clat_reason why)
{
	n->passed[d][why]++;
	return TC_ACT_UNSPEC;
}

/* Whether an IPv4 address may be on the far side; the translator knows the reasons for the rest. */
static __always_inline bool is_remote(const struct clat_mapping *m, __u32 a)
{
	if (a == m->ipv4 || a >> 24 == 0 || a >> 24 == 127 || a >> 28 >= 14 || a >> 16 == 0xa9fe || a >> 4 == 0xc000000)
		return false;
	return !(m->flags & CLAT_PUBLIC_ONLY) || !(a >> 24 == 10 || a >> 20 == 0xac1 || a >> 16 == 0xc0a8);
}

/* An IPv4 packet of the host, at ingress of the veth. */
static __always_inline int translate_outbound(struct __sk_buff *skb, const struct clat_config *c, struct clat_counts *n)
{
	const struct clat_mapping *m = NULL;
	__be16 type = bpf_htons(ETH_P_IPV6);
	struct ipv6hdr to = {};
	struct transport t;
	__u32 length, wire, pseudo;
	struct iphdr ip;
	__u64 sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || *(__u8 *)&ip != IP_VERSION_AND_LENGTH ||
	    bpf_ntohs(ip.tot_len) != skb->len - ETH_HLEN || header_checksum(&ip))
		return pass(n, CLAT_OUTBOUND, CLAT_HEADER);
	if (ip.frag_off & bpf_htons(IP_MF_AND_OFFSET))
		return pass(n, CLAT_OUTBOUND, CLAT_FRAGMENT);
	if (ip.ttl <= c->hop_decrement)
		return pass(n, CLAT_OUTBOUND, CLAT_HOP_LIMIT);
	for (__u32 i = 0; i < CLAT_MAPPINGS; i++)
		if (!m && i < c->mappings_count && c->mappings[i].ipv4 == bpf_ntohl(ip.saddr))
			m = &c->mappings[i];
	if (!m || !is_remote(m, bpf_ntohl(ip.daddr)))
		return pass(n, CLAT_OUTBOUND, CLAT_ADDRESS);
	length = skb->len - ETH_HLEN - sizeof(ip);
	if (ip.protocol == IPPROTO_ICMPV6 || !read_transport(skb, ETH_HLEN + sizeof(ip), length, ip.protocol, &t))
		return pass(n, CLAT_OUTBOUND, CLAT_PROTOCOL);
	wire = wire_length(skb, sizeof(to), length, &t);
	if (wire > (skb->gso_size || ip.frag_off & bpf_htons(IP_DF) ? c->ipv6_mtu : c->lowest_ipv6_mtu))
		return pass(n, CLAT_OUTBOUND, CLAT_SIZE);
	if (bpf_skb_change_proto(skb, type, 0))
		return pass(n, CLAT_OUTBOUND, CLAT_MEMORY);

	/* from here on there is no way back */
	to.version = 6;
	to.priority = (ip.tos & c->traffic_class_mask) >> 4;
	to.flow_lbl[0] = (ip.tos & c->traffic_class_mask) << 4;
	to.payload_len = bpf_htons(length);
	to.nexthdr = t.protocol;
	to.hop_limit = ip.ttl - c->hop_decrement;
	to.saddr = ipv6_address(m->ipv6.high, m->ipv6.low);
	to.daddr = embed(m, bpf_ntohl(ip.daddr));
	sum = words(&to.saddr) + words(&to.daddr);
	if (t.counted_as == CLAT_ICMP)
		sum += bpf_htonl(length) + (__u64)bpf_htonl(IPPROTO_ICMPV6);
	else
		sum += (__u64)(__u32)~ip.saddr + (__u32)~ip.daddr;
	pseudo = fold((__u64)ip.saddr + ip.daddr + bpf_htonl(length) + bpf_htonl(IPPROTO_UDP));
	if (!rewrite_transport(skb, ETH_HLEN + sizeof(to), pseudo, fold(sum), &t) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &to, sizeof(to), BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &type, sizeof(type), 0))
		return fail(n);
	count(n, CLAT_OUTBOUND, &t, sizeof(to) + length);
	return to_pref64(c);
}

/* An IPv6 packet to the mapping's address from within its PREF64, at ingress of the uplink. */
static __always_inline int translate_inbound(struct __sk_buff *skb, const struct clat_config *c, struct clat_counts *n,
					     const struct clat_mapping *m, const struct ipv6hdr *ip)
{
	__u32 length = bpf_ntohs(ip->payload_len), remote = extract(m, address(&ip->saddr));
	__be16 type = bpf_htons(ETH_P_IP);
	struct ethhdr link;
	struct iphdr to = {};
	struct transport t;
	__u32 wire, pseudo;
	__u64 sum;

	if (ip->version != 6 || length != skb->len - ETH_HLEN - sizeof(*ip))
		return pass(n, CLAT_INBOUND, CLAT_HEADER);
	if (ip->nexthdr == IPPROTO_FRAGMENT)
		return pass(n, CLAT_INBOUND, CLAT_FRAGMENT);
	if (ip->hop_limit <= c->hop_decrement)
		return pass(n, CLAT_INBOUND, CLAT_HOP_LIMIT);
	if (!is_remote(m, remote))
		return pass(n, CLAT_INBOUND, CLAT_ADDRESS);
	if (ip->nexthdr == IPPROTO_ICMP || !read_transport(skb, ETH_HLEN + sizeof(*ip), length, ip->nexthdr, &t))
		return pass(n, CLAT_INBOUND, CLAT_PROTOCOL);
	wire = wire_length(skb, sizeof(to), length, &t);
	if (wire > c->ipv4_mtu || sizeof(to) + length > 0xffff)
		return pass(n, CLAT_INBOUND, CLAT_SIZE);
	if (bpf_skb_change_proto(skb, type, 0))
		return pass(n, CLAT_INBOUND, CLAT_MEMORY);

	/* from here on there is no way back */
	to.version = 4;
	to.ihl = sizeof(to) / 4;
	to.tos = (ip->priority << 4 | ip->flow_lbl[0] >> 4) & c->traffic_class_mask;
	to.tot_len = bpf_htons(sizeof(to) + length);
	if (wire < CLAT_DF_FROM)
		to.id = bpf_htons(bpf_get_prandom_u32() % 0xffff + 1);
	else
		to.frag_off = bpf_htons(IP_DF);
	to.ttl = ip->hop_limit - c->hop_decrement;
	to.protocol = t.protocol;
	to.saddr = bpf_htonl(remote);
	to.daddr = bpf_htonl(m->ipv4);
	to.check = header_checksum(&to);
	sum = words(&ip->saddr) + words(&ip->daddr);
	if (t.counted_as == CLAT_ICMP)
		sum = ~fold(sum + bpf_htonl(length) + bpf_htonl(IPPROTO_ICMPV6));
	else
		sum = (__u64)~fold(sum) + to.saddr + to.daddr;
	pseudo = fold(words(&ip->saddr) + words(&ip->daddr) + bpf_htonl(length) + bpf_htonl(IPPROTO_UDP));
	__builtin_memcpy(&link, c->host_link, sizeof(c->host_link));
	link.h_proto = type;
	if (!rewrite_transport(skb, ETH_HLEN + sizeof(to), pseudo, fold(sum), &t) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &to, sizeof(to), BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, 0, &link, sizeof(link), 0))
		return fail(n);
	count(n, CLAT_INBOUND, &t, sizeof(to) + length);
	return bpf_redirect(c->host, 0);
}
