/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The three programs of a CLAT instance, each at ingress of one device of its namespace:
 *
 *	host --from_host--> TUN --from_tun--> uplink
 *	host <--from_tun--- TUN <-from_uplink- uplink
 *
 * What is plain from_host and from_uplink translate themselves (translate.h), and redirect past the TUN.
 * Nothing is routed by the namespace's stack, so it needs neither forwarding nor policy rules, and the hop is counted
 * once. Of what arrives for a CLAT address the stack keeps neighbour discovery, MLD and the native echo.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/icmpv6.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "address.h"
#include "clat.h"
#include "translate.h"

/* linux/if_vlan.h keeps it from user space: the VLAN identifier of IEEE 802.1Q. */
#define VLAN_VID_MASK 0x0fff
/* No header for programs has it: Redirect (RFC 4861 section 4.5), the last of the neighbour discovery types. */
#define ICMPV6_ND_REDIRECT 137
/* A datagram with more extension headers than this is nobody's plain traffic. */
#define EXTENSION_HEADERS 8

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct clat_config));
	});
} clat_configs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct clat_counts);
} clat_counters SEC(".maps");

static __always_inline const struct clat_config *configuration(void)
{
	__u32 zero = 0;
	void *map = bpf_map_lookup_elem(&clat_configs, &zero);

	return map ? bpf_map_lookup_elem(map, &zero) : NULL;
}

static __always_inline struct clat_counts *counters(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&clat_counters, &zero);
}

static __always_inline bool inside_any(const struct clat_config *c, struct clat_address a)
{
	for (__u32 i = 0; i < CLAT_MAPPINGS; i++)
		if (i < c->mappings_count && inside(&c->mappings[i], a))
			return true;
	return false;
}

static __always_inline int to_translator(const struct clat_config *c, struct clat_counts *n, enum clat_direction d)
{
	n->to_translator[d]++;
	return bpf_redirect(c->tun, 0);
}

SEC("tc")
int from_host(struct __sk_buff *skb)
{
	const struct clat_config *c = configuration();
	struct clat_counts *n = counters();

	if (!c || !n)
		return TC_ACT_SHOT;
	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present) {
		n->ignored++;
		return TC_ACT_SHOT;
	}
	if (c->flags & CLAT_KERNEL_PATH) {
		int verdict = translate_outbound(skb, c, n);

		if (verdict != TC_ACT_UNSPEC)
			return verdict;
	}
	return to_translator(c, n, CLAT_OUTBOUND);
}

/* What follows the extension headers of an IPv6 packet. */
struct upper_layer {
	__u32 offset;
	__u8 protocol;
	bool fragment; /* a part only; RFC 6946's atomic fragment is a whole */
};

/* Walks the extension headers that may precede any protocol (RFC 8200 section 4.1); false where they do not end. */
static __always_inline bool find_upper_layer(struct __sk_buff *skb, __u8 protocol, struct upper_layer *found)
{
	__u32 offset = ETH_HLEN + sizeof(struct ipv6hdr);
	struct {
		__u8 next, length;
		__be16 fragment;
	} header;

	found->fragment = false;
	for (int i = 0; i < EXTENSION_HEADERS; i++) {
		switch (protocol) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_FRAGMENT:
			break;
		default:
			found->offset = offset;
			found->protocol = protocol;
			return true;
		}
		if (bpf_skb_load_bytes(skb, offset, &header, sizeof(header)))
			return false;
		if (protocol == IPPROTO_FRAGMENT) {
			/* all but the two reserved bits: offset and M */
			found->fragment = header.fragment & bpf_htons(0xfff9);
			found->protocol = header.next;
			if (found->fragment)
				return true;
			header.length = 0;
		}
		protocol = header.next;
		offset += 8 * (header.length + 1);
	}
	return false;
}

/* Whether an ICMPv6 error at that offset is about a packet we sent (RFC 4443 section 2.4 (c) puts it at octet 8). */
static __always_inline bool about_ours(struct __sk_buff *skb, const struct clat_config *c, __u32 offset,
				       struct clat_address ours)
{
	struct ipv6hdr sent;

	return !bpf_skb_load_bytes(skb, offset + sizeof(struct icmp6hdr), &sent, sizeof(sent)) &&
	       sent.version == 6 && same(address(&sent.saddr), ours) && inside_any(c, address(&sent.daddr));
}

/* Whether the kernel must answer itself: MLD (RFC 2710, RFC 3810), neighbour and router discovery (RFC 4861). */
static __always_inline bool belongs_to_link(__u8 type)
{
	return (type >= ICMPV6_MGM_QUERY && type <= ICMPV6_ND_REDIRECT) || type == ICMPV6_MLD2_REPORT;
}

/* Whether a packet to a CLAT address is the translator's; the rest is the stack's. */
static __always_inline bool is_for_translator(struct __sk_buff *skb, const struct clat_config *c,
					      const struct ipv6hdr *ip, struct clat_address ours)
{
	bool translatable = inside_any(c, address(&ip->saddr));
	struct upper_layer upper;
	__u8 type;

	if (!find_upper_layer(skb, ip->nexthdr, &upper))
		return translatable;
	if (upper.protocol != IPPROTO_ICMPV6)
		return true; /* from outside PREF64 too: it gets its ICMPv6 1/1 (RFC 7915 section 5.4) */
	if (upper.fragment || bpf_skb_load_bytes(skb, upper.offset, &type, sizeof(type)))
		return translatable;
	if (belongs_to_link(type))
		return false;
	return translatable || (type < ICMPV6_INFOMSG_MASK && about_ours(skb, c, upper.offset, ours));
}

SEC("tc")
int from_uplink(struct __sk_buff *skb)
{
	const struct clat_config *c = configuration();
	struct clat_counts *n = counters();
	const struct clat_mapping *pair = NULL;
	struct clat_address ours, remote;
	bool is_ours = false;
	struct ipv6hdr ip;

	if (!c || !n || skb->protocol != bpf_htons(ETH_P_IPV6) || skb->pkt_type == PACKET_OTHERHOST)
		return TC_ACT_OK;
	if (skb->vlan_present && (skb->vlan_tci & VLAN_VID_MASK))
		return TC_ACT_OK;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return TC_ACT_OK;
	ours = address(&ip.daddr);
	remote = address(&ip.saddr);
	for (__u32 i = 0; i < CLAT_MAPPINGS; i++) {
		if (i >= c->mappings_count || !same(ours, c->mappings[i].ipv6))
			continue;
		is_ours = true;
		if (!pair && inside(&c->mappings[i], remote))
			pair = &c->mappings[i];
	}
	if (!is_ours)
		return TC_ACT_OK;
	/* a tag of priority alone (VLAN 0) must not come out at the TUN in front of the packet */
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return fail(n);
	if (pair && c->flags & CLAT_KERNEL_PATH) {
		int verdict = translate_inbound(skb, c, n, pair, &ip);

		if (verdict != TC_ACT_UNSPEC)
			return verdict;
	}
	if (is_for_translator(skb, c, &ip, ours))
		return to_translator(c, n, CLAT_INBOUND);
	n->to_stack++;
	return TC_ACT_OK;
}

SEC("tc")
int from_tun(struct __sk_buff *skb)
{
	const struct clat_config *c = configuration();
	struct clat_counts *n = counters();
	struct ethhdr link = {};
	struct in6_addr to;

	if (!c || !n)
		return TC_ACT_SHOT;
	/* both ways of redirecting expect a link-layer header; the neighbour table fills it in towards the uplink */
	if (bpf_skb_change_head(skb, ETH_HLEN, 0))
		return fail(n);
	link.h_proto = skb->protocol;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		__builtin_memcpy(&link, c->host_link, sizeof(c->host_link));
		if (bpf_skb_store_bytes(skb, 0, &link, sizeof(link), 0))
			return fail(n);
		n->from_translator[CLAT_INBOUND]++;
		return bpf_redirect(c->host, 0);
	}
	if (bpf_skb_store_bytes(skb, 0, &link, sizeof(link), 0) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, daddr), &to, sizeof(to)))
		return fail(n);
	n->from_translator[CLAT_OUTBOUND]++;
	/* an error may go to a neighbour */
	return inside_any(c, address(&to)) ? to_pref64(c) : bpf_redirect_neigh(c->uplink, NULL, 0, 0);
}

char program_license[] SEC("license") = "GPL";
