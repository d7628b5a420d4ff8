#pragma once
/* The C library's headers first: the kernel's then leave out what both define. */
#include <net/if.h>
#include <netinet/in.h>
#include <libmnl/libmnl.h>
/* Both the kernel's and the C library's ICMPv6 header define this one, and a Swift file may import both. */
#define icmp6_filter kernel_icmp6_filter
#include <linux/icmpv6.h>
#undef icmp6_filter
#include <linux/ethtool_netlink.h>
#include <linux/fib_rules.h>
#include <linux/genetlink.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/ipv6.h>
#include <linux/neighbour.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <linux/wireless.h>
