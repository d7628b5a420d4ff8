import ClatBase
import Testing

@testable import ClatNetlink

/// The octets are those of a little-endian machine, as netlink's are in host order.
@Suite("A request")
struct RequestTests {
    /// Compares a whole message, octet by octet, each row of the golden one with what it means.
    func expect(_ request: borrowing Request, _ golden: String, at location: SourceLocation = #_sourceLocation) throws {
        let isOverfull = request.isOverfull
        #expect(!isOverfull, sourceLocation: location)
        let text = Array(request.bytes).hex
        #expect(text == (try hex(golden)).hex, sourceLocation: location)
    }

    @Test("to list the links asks for them without their statistics")
    func links() throws {
        try expect(
            .links(),
            """
            28000000 1200 0103 00000000 00000000          // 40 octets, RTM_GETLINK, REQUEST|DUMP, sequence, port
            00 00 0000 00000000 00000000 00000000         // ifinfomsg
            0800 1d00 08000000                            // IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS
            """)
    }

    @Test("for one link names it or gives its index")
    func link() throws {
        try expect(
            .link(named: "wan"),
            """
            30000000 1200 0500 00000000 00000000          // 48 octets, RTM_GETLINK, REQUEST|ACK
            00 00 0000 00000000 00000000 00000000         // ifinfomsg
            0800 0300 77616e00                            // IFLA_IFNAME "wan"
            0800 1d00 08000000                            // IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS
            """)
        try expect(
            .link(index: 7),
            """
            28000000 1200 0500 00000000 00000000          // 40 octets, RTM_GETLINK, REQUEST|ACK
            00 00 0000 07000000 00000000 00000000         // ifinfomsg: index 7
            0800 1d00 08000000                            // IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS
            """)
    }

    @Test("for a veth puts the peer into the other namespace")
    func veth() throws {
        try expect(
            .newVeth(
                "v4", peer: "up0", namespace: 7, mtu: 1500, hardwareAddress: HardwareAddress(rawValue: 0x0264_0000_0010)
            ),
            """
            7c000000 1000 0506 00000000 00000000          // 124 octets, RTM_NEWLINK, REQUEST|ACK|EXCL|CREATE
            00 00 0000 00000000 00000000 00000000         // ifinfomsg
            0700 0300 763400 00                           // IFLA_IFNAME "v4"
            0a00 0100 026400000010 0000                   // IFLA_ADDRESS
            0800 0400 dc050000                            // IFLA_MTU 1500
            4000 1280                                     // IFLA_LINKINFO, nested
              0900 0100 7665746800 000000                 // IFLA_INFO_KIND "veth"
              3000 0280                                   // IFLA_INFO_DATA, nested
                2c00 0180                                 // VETH_INFO_PEER, nested
                  00 00 0000 00000000 00000000 00000000   // ifinfomsg
                  0800 0300 75703000                      // IFLA_IFNAME "up0"
                  0800 0400 dc050000                      // IFLA_MTU 1500
                  0800 1c00 07000000                      // IFLA_NET_NS_FD 7
            """)
    }

    @Test("for an ipvlan says mode L2 and its namespace, and leaves the flags of the port alone")
    func ipvlan() throws {
        try expect(
            .newIPvlan("clat0", parent: 2, namespace: 7),
            """
            58000000 1000 0506 00000000 00000000          // 88 octets, RTM_NEWLINK, REQUEST|ACK|EXCL|CREATE
            00 00 0000 00000000 00000000 00000000         // ifinfomsg
            0a00 0300 636c61743000 0000                   // IFLA_IFNAME "clat0"
            0800 0500 02000000                            // IFLA_LINK 2
            0800 1c00 07000000                            // IFLA_NET_NS_FD 7
            1c00 1280                                     // IFLA_LINKINFO, nested
              0b00 0100 6970766c616e00 00                 // IFLA_INFO_KIND "ipvlan"
              0c00 0280                                   // IFLA_INFO_DATA, nested
                0600 0100 0000 0000                       // IFLA_IPVLAN_MODE L2
            """)
    }

    @Test("for a macvlan says mode bridge and its namespace")
    func macvlan() throws {
        try expect(
            .newMacvlan("clat0", parent: 2, namespace: 7),
            """
            58000000 1000 0506 00000000 00000000          // 88 octets, RTM_NEWLINK, REQUEST|ACK|EXCL|CREATE
            00 00 0000 00000000 00000000 00000000         // ifinfomsg
            0a00 0300 636c61743000 0000                   // IFLA_IFNAME "clat0"
            0800 0500 02000000                            // IFLA_LINK 2
            0800 1c00 07000000                            // IFLA_NET_NS_FD 7
            1c00 1280                                     // IFLA_LINKINFO, nested
              0c00 0100 6d6163766c616e00                  // IFLA_INFO_KIND "macvlan"
              0c00 0280                                   // IFLA_INFO_DATA, nested
                0800 0100 04000000                        // IFLA_MACVLAN_MODE bridge
            """)
    }

    @Test("to change a link changes nothing else")
    func changes() throws {
        try expect(
            .setLink(7, up: true),
            """
            20000000 1000 0500 00000000 00000000          // 32 octets, RTM_NEWLINK, REQUEST|ACK
            00 00 0000 07000000 01000000 01000000         // ifinfomsg: index 7, flags IFF_UP, change IFF_UP
            """)
        try expect(
            .setLink(7, up: false),
            """
            20000000 1000 0500 00000000 00000000          // 32 octets, RTM_NEWLINK, REQUEST|ACK
            00 00 0000 07000000 00000000 01000000         // ifinfomsg: index 7, no flags, change IFF_UP
            """)
        try expect(
            .setMTU(1280, ofLink: 7),
            """
            28000000 1000 0500 00000000 00000000          // 40 octets, RTM_NEWLINK, REQUEST|ACK
            00 00 0000 07000000 00000000 00000000         // ifinfomsg: index 7
            0800 0400 00050000                            // IFLA_MTU 1280
            """)
        try expect(
            .setAddressGenerationMode(.none, ofLink: 7),
            """
            30000000 1000 0500 00000000 00000000          // 48 octets, RTM_NEWLINK, REQUEST|ACK
            00 00 0000 07000000 00000000 00000000         // ifinfomsg: index 7
            1000 1a80                                     // IFLA_AF_SPEC, nested
              0c00 0a80                                   // AF_INET6, nested
                0500 0800 01 000000                       // IFLA_INET6_ADDR_GEN_MODE none
            """)
        try expect(
            .deleteLink(7),
            """
            20000000 1100 0500 00000000 00000000          // 32 octets, RTM_DELLINK, REQUEST|ACK
            00 00 0000 07000000 00000000 00000000         // ifinfomsg: index 7
            """)
    }

    @Test("to list addresses filters by family and link")
    func addresses() throws {
        try expect(
            .addresses(.ipv6, on: 7),
            """
            18000000 1600 0103 00000000 00000000          // 24 octets, RTM_GETADDR, REQUEST|DUMP
            0a 00 00 00 07000000                          // ifaddrmsg: AF_INET6, index 7
            """)
        try expect(
            .addresses(nil, on: nil),
            """
            18000000 1600 0103 00000000 00000000          // 24 octets, RTM_GETADDR, REQUEST|DUMP
            00 00 00 00 00000000                          // ifaddrmsg
            """)
    }

    @Test("for an IPv6 address carries all its flags and both lifetimes")
    func newIPv6Address() throws {
        let address = InterfaceAddress(
            try IPAddress("2001:db8::c1a7"), prefixLength: 64, on: 7, flags: [.noDAD, .noPrefixRoute],
            preferredLifetime: .seconds(1800), validLifetime: nil)
        try expect(
            .newAddress(address, 0x600),
            """
            5c000000 1400 0506 00000000 00000000          // 92 octets, RTM_NEWADDR, REQUEST|ACK|EXCL|CREATE
            0a 40 00 00 07000000                          // ifaddrmsg: AF_INET6, /64, no flags, universe, index 7
            1400 0200 20010db8000000000000000000 00c1a7   // IFA_LOCAL
            1400 0100 20010db8000000000000000000 00c1a7   // IFA_ADDRESS
            0800 0800 02020000                            // IFA_FLAGS NODAD|NOPREFIXROUTE
            1400 0600 08070000 ffffffff 00000000 00000000 // IFA_CACHEINFO: preferred 1800, valid for ever
            """)
    }

    @Test("for an IPv4 address carries the peer where there is one")
    func newIPv4Address() throws {
        var address = InterfaceAddress(try IPAddress("192.0.0.1"), prefixLength: 32, on: 7, scope: .link)
        address.peer = try IPAddress("192.0.0.2")
        try expect(
            .newAddress(address, 0x500),
            """
            44000000 1400 0505 00000000 00000000          // 68 octets, RTM_NEWADDR, REQUEST|ACK|REPLACE|CREATE
            02 20 00 fd 07000000                          // ifaddrmsg: AF_INET, /32, no flags, link, index 7
            0800 0200 c0000001                            // IFA_LOCAL
            0800 0100 c0000002                            // IFA_ADDRESS
            0800 0800 00000000                            // IFA_FLAGS
            1400 0600 ffffffff ffffffff 00000000 00000000 // IFA_CACHEINFO: for ever
            """)
        try expect(
            .deleteAddress(address),
            """
            28000000 1500 0500 00000000 00000000          // 40 octets, RTM_DELADDR, REQUEST|ACK
            02 20 00 fd 07000000                          // ifaddrmsg: AF_INET, /32, no flags, link, index 7
            0800 0200 c0000001                            // IFA_LOCAL
            0800 0100 c0000002                            // IFA_ADDRESS
            """)
    }

    @Test(
        "says a lifetime in whole seconds, and for ever only where it is for ever",
        arguments: [
            (nil, .max), (.zero, 0), (.seconds(-5), 0), (.milliseconds(1900), 1), (.seconds(7200), 7200),
            (.seconds(0xffff_fffe), 0xffff_fffe), (.seconds(0xffff_ffff), 0xffff_fffe),
            (.seconds(1 << 40), 0xffff_fffe),
        ] as [(Duration?, UInt32)])
    func lifetime(_ duration: Duration?, _ seconds: UInt32) {
        #expect(InterfaceAddress.seconds(duration) == seconds)
    }

    @Test("to list routes filters by family and table")
    func routes() throws {
        try expect(
            .routes(.ipv4, table: .main),
            """
            24000000 1a00 0103 00000000 00000000          // 36 octets, RTM_GETROUTE, REQUEST|DUMP
            02 00 00 00 00 00 00 00 00000000              // rtmsg: AF_INET
            0800 0f00 fe000000                            // RTA_TABLE main
            """)
        try expect(
            .routes(.ipv6, table: nil),
            """
            1c000000 1a00 0103 00000000 00000000          // 28 octets, RTM_GETROUTE, REQUEST|DUMP
            0a 00 00 00 00 00 00 00 00000000              // rtmsg: AF_INET6
            """)
    }

    @Test("for the CLAT's default route has an IPv6 next hop, a metric and an MTU")
    func newDefaultRoute() throws {
        let route = Route(
            to: .any(.ipv4), via: try IPAddress("fe80::1"), on: 7, metric: 2048, mtu: 1480, advertisedMSS: 1440,
            preferredSource: try IPAddress("192.0.0.1"), flags: [.onLink, .dead])
        try expect(
            .newRoute(route, 0x600),
            """
            68000000 1800 0506 00000000 00000000          // 104 octets, RTM_NEWROUTE, REQUEST|ACK|EXCL|CREATE
            02 00 00 00 fe 04 00 01 04000000              // rtmsg: AF_INET, /0, main, static, universe, unicast, ONLINK
            0800 0f00 fe000000                            // RTA_TABLE main
            1600 1200 0a00 fe800000000000000000000000000001 0000 // RTA_VIA: AF_INET6 fe80::1
            0800 0400 07000000                            // RTA_OIF 7
            0800 0600 00080000                            // RTA_PRIORITY 2048
            0800 0700 c0000001                            // RTA_PREFSRC
            1400 0880                                     // RTA_METRICS, nested
              0800 0200 c8050000                          // RTAX_MTU 1480
              0800 0800 a0050000                          // RTAX_ADVMSS 1440
            """)
    }

    @Test("for an IPv6 route says gateway, table and preference")
    func newIPv6Route() throws {
        var route = Route(
            to: try #require(IPPrefix(try IPAddress("64:ff9b::"), length: 96)), via: try IPAddress("fe80::1"), on: 7,
            origin: .ra, table: RouteTable(rawValue: 1000))
        route.preference = .low
        try expect(
            .newRoute(route, 0x500),
            """
            5c000000 1800 0505 00000000 00000000          // 92 octets, RTM_NEWROUTE, REQUEST|ACK|REPLACE|CREATE
            0a 60 00 00 fc 09 00 01 00000000              // rtmsg: AF_INET6, /96, compat, ra, universe, unicast
            1400 0100 0064ff9b000000000000000000000000    // RTA_DST
            0800 0f00 e8030000                            // RTA_TABLE 1000
            1400 0500 fe800000000000000000000000000001    // RTA_GATEWAY
            0800 0400 07000000                            // RTA_OIF 7
            0500 1400 03 000000                           // RTA_PREF low
            """)
    }

    @Test("to remove a route repeats it")
    func deleteRoute() throws {
        try expect(
            .deleteRoute(Route(to: IPPrefix(try IPAddress("192.0.2.1")), on: 7)),
            """
            34000000 1900 0500 00000000 00000000          // 52 octets, RTM_DELROUTE, REQUEST|ACK
            02 20 00 00 fe 04 fd 01 00000000              // rtmsg: AF_INET, /32, main, static, link, unicast
            0800 0100 c0000201                            // RTA_DST
            0800 0f00 fe000000                            // RTA_TABLE main
            0800 0400 07000000                            // RTA_OIF 7
            """)
    }

    @Test("to look up a route wants to know the table")
    func lookup() throws {
        try expect(
            .route(to: try IPAddress("192.0.2.1"), from: try IPAddress("192.0.0.1"), on: 7),
            """
            34000000 1a00 0500 00000000 00000000          // 52 octets, RTM_GETROUTE, REQUEST|ACK
            02 20 20 00 00 00 00 00 00100000              // rtmsg: AF_INET, /32 from /32, RTM_F_LOOKUP_TABLE
            0800 0100 c0000201                            // RTA_DST
            0800 0200 c0000001                            // RTA_SRC
            0800 0400 07000000                            // RTA_OIF 7
            """)
    }

    @Test("to look up an IPv6 route sets no flag, as the kernel refuses all")
    func lookupIPv6() throws {
        try expect(
            .route(to: try IPAddress("2001:db8::1"), from: nil, on: nil),
            """
            30000000 1a00 0500 00000000 00000000          // 48 octets, RTM_GETROUTE, REQUEST|ACK
            0a 80 00 00 00 00 00 00 00000000              // rtmsg: AF_INET6, /128
            1400 0100 20010db8000000000000000000000001    // RTA_DST
            """)
    }

    @Test("for a neighbour is permanent")
    func neighbours() throws {
        let hardware = try #require(HardwareAddress(bytes: [2, 0, 0, 0, 0, 0x46]))
        let neighbour = Neighbour(try IPAddress("fe80::1"), at: hardware, on: 7)
        try expect(
            .newNeighbour(neighbour),
            """
            3c000000 1c00 0505 00000000 00000000          // 60 octets, RTM_NEWNEIGH, REQUEST|ACK|REPLACE|CREATE
            0a 00 0000 07000000 8000 00 00                // ndmsg: AF_INET6, index 7, NUD_PERMANENT
            1400 0100 fe800000000000000000000000000001    // NDA_DST
            0a00 0200 020000000046 0000                   // NDA_LLADDR
            """)
        try expect(
            .deleteNeighbour(neighbour),
            """
            30000000 1d00 0500 00000000 00000000          // 48 octets, RTM_DELNEIGH, REQUEST|ACK
            0a 00 0000 07000000 8000 00 00                // ndmsg: AF_INET6, index 7, NUD_PERMANENT
            1400 0100 fe800000000000000000000000000001    // NDA_DST
            """)
        try expect(
            .neighbours(.ipv6, on: 7),
            """
            24000000 1e00 0103 00000000 00000000          // 36 octets, RTM_GETNEIGH, REQUEST|DUMP
            0a 00 0000 00000000 0000 00 00                // ndmsg: AF_INET6
            0800 0800 07000000                            // NDA_IFINDEX 7
            """)
    }

    @Test("for a rule says what it is about, and gives priority and table even where they could be left out")
    func rules() throws {
        let prefix = try #require(IPPrefix(try IPAddress("64:ff9b::"), length: 96))
        let rule = Rule(
            .ipv6, priority: 10, from: prefix, by: "up0", transport: 58, table: RouteTable(rawValue: 464))
        try expect(
            .newRule(rule),
            """
            58000000 2000 0506 00000000 00000000          // 88 octets, RTM_NEWRULE, REQUEST|ACK|EXCL|CREATE
            0a 00 60 00 fc 00 00 01 00000000              // fib_rule_hdr: AF_INET6, source /96, compat, to table
            0800 0600 0a000000                            // FRA_PRIORITY 10
            0800 0f00 d0010000                            // FRA_TABLE 464
            1400 0200 0064ff9b000000000000000000000000    // FRA_SRC
            0800 0300 75703000                            // FRA_IIFNAME "up0"
            0500 1600 3a 000000                           // FRA_IP_PROTO ICMPv6
            0500 1500 04 000000                           // FRA_PROTOCOL static
            """)
        try expect(
            .deleteRule(Rule(.ipv4, priority: 0, table: .local, origin: .kernel)),
            """
            34000000 2100 0500 00000000 00000000          // 52 octets, RTM_DELRULE, REQUEST|ACK
            02 00 00 00 ff 00 00 01 00000000              // fib_rule_hdr: AF_INET, local, to table
            0800 0600 00000000                            // FRA_PRIORITY 0
            0800 0f00 ff000000                            // FRA_TABLE local
            0500 1500 02 000000                           // FRA_PROTOCOL kernel
            """)
        try expect(
            .rules(.ipv6),
            """
            1c000000 2200 0103 00000000 00000000          // 28 octets, RTM_GETRULE, REQUEST|DUMP
            0a 00 00 00 00 00 00 00 00000000              // fib_rule_hdr: AF_INET6
            """)
    }

    @Test("for statistics asks for those of a link alone")
    func statistics() throws {
        try expect(
            .statistics(of: 7),
            """
            1c000000 5e00 0500 00000000 00000000          // 28 octets, RTM_GETSTATS, REQUEST|ACK
            00 00 0000 07000000 01000000                  // if_stats_msg: index 7, IFLA_STATS_LINK_64
            """)
    }

    @Test("for features names those that are to be off")
    func features() throws {
        try expect(
            .family(named: "ethtool"),
            """
            20000000 1000 0500 00000000 00000000          // 32 octets, GENL_ID_CTRL, REQUEST|ACK
            03 01 0000                                    // genlmsghdr: CTRL_CMD_GETFAMILY, version 1
            0c00 0200 657468746f6f6c00                    // CTRL_ATTR_FAMILY_NAME "ethtool"
            """)
        try expect(
            .switchOff(["tso", "gso"], ofLink: 7, family: 21),
            """
            48000000 1500 0500 00000000 00000000          // 72 octets, the family's, REQUEST|ACK
            0c 01 0000                                    // genlmsghdr: ETHTOOL_MSG_FEATURES_SET, version 1
            1400 0180                                     // ETHTOOL_A_FEATURES_HEADER, nested
              0800 0100 07000000                          // ETHTOOL_A_HEADER_DEV_INDEX 7
              0800 0300 02000000                          // ETHTOOL_A_HEADER_FLAGS: OMIT_REPLY
            2000 0380                                     // ETHTOOL_A_FEATURES_WANTED, nested
              1c00 0380                                   // ETHTOOL_A_BITSET_BITS, nested
                0c00 0180 0800 0200 74736f00              // ETHTOOL_A_BITSET_BITS_BIT, of which NAME "tso"
                0c00 0180 0800 0200 67736f00              // and "gso", both without a value
            """)
    }

    @Test("that does not fit is not sent")
    func overfull() throws {
        let request = Request.link(named: String(repeating: "x", count: 2000))
        let isOverfull = request.isOverfull
        #expect(isOverfull)
        var socket = try NetlinkSocket()
        #expect(throws: NetlinkError(operation: "list", code: 90)) { try socket.perform("list", request) }
    }
}
