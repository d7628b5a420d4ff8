#pragma once
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <mcheck.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

/* ioctl requests are macros with a cast inside, which the importer cannot see. */
enum {
	CLAT_TUNSETIFF = TUNSETIFF,
	CLAT_TUNGETIFF = TUNGETIFF,
	CLAT_TUNSETOFFLOAD = TUNSETOFFLOAD,
	CLAT_TUNGETDEVNETNS = TUNGETDEVNETNS,
	CLAT_TUNATTACHFILTER = TUNATTACHFILTER,
};

/* Since Linux 6.2 (linux/if_tun.h of older distributions lacks them). */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

/* Since Linux 6.2 (linux/virtio_net.h of older distributions lacks it). */
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

/* Of two names one is chosen by the size of time_t, in an expression. */
enum { CLAT_SO_TIMESTAMPNS = SO_TIMESTAMPNS };

/* Ancillary data of a received packet: the CMSG macros, which the importer cannot see either. */
static inline struct cmsghdr *clat_cmsg_first(struct msghdr *message) { return CMSG_FIRSTHDR(message); }
static inline struct cmsghdr *clat_cmsg_next(struct msghdr *message, struct cmsghdr *entry) { return CMSG_NXTHDR(message, entry); }
static inline const void *clat_cmsg_data(const struct cmsghdr *entry) { return CMSG_DATA(entry); }
static inline size_t clat_cmsg_length(size_t octets) { return CMSG_LEN(octets); }
static inline size_t clat_cmsg_space(size_t octets) { return CMSG_SPACE(octets); }
