import ClatBase

@testable import ClatNetlink

/// Notices as the kernel sends them (little-endian), and what they say.
enum GoldenNotices {
    /// An ipvlan in mode L2, private, with IPv6 settings.
    static let link = """
        d4000000 1000 0000 00000000 00000000          // 212 octets, RTM_NEWLINK
        00 00 0100 07000000 43100100 00000000         // ifinfomsg: Ethernet, index 7, flags, change
        0a00 0300 636c61743000 0000                   // IFLA_IFNAME "clat0"
        0800 0d00 e8030000                            // IFLA_TXQLEN 1000
        0500 1000 06 000000                           // IFLA_OPERSTATE up
        0800 0400 dc050000                            // IFLA_MTU 1500
        0800 0500 02000000                            // IFLA_LINK 2
        0800 2500 00000000                            // IFLA_LINK_NETNSID 0
        0500 2100 01 000000                           // IFLA_CARRIER
        0800 3000 05000000                            // IFLA_CARRIER_DOWN_COUNT 5
        0a00 0100 020000000046 0000                   // IFLA_ADDRESS
        0800 0a00 09000000                            // IFLA_MASTER 9
        2400 1200                                     // IFLA_LINKINFO, not flagged as nested
          0b00 0100 6970766c616e00 00                 // IFLA_INFO_KIND "ipvlan"
          1400 0200                                   // IFLA_INFO_DATA
            0600 0100 0000 0000                       // IFLA_IPVLAN_MODE L2
            0600 0200 0100 0000                       // IFLA_IPVLAN_FLAGS private
        3800 1a80                                     // IFLA_AF_SPEC, nested
          1000 0200 deadbeefdeadbeefdeadbeef          // AF_INET, of no interest
          2400 0a00                                   // AF_INET6
            1400 0200 00000000 40000000 c8050000 02000000 // IFLA_INET6_CONF: forwarding 0, hop limit 64, MTU 1480, RA 2
            0500 0800 01 000000                       // IFLA_INET6_ADDR_GEN_MODE none
            0400 ff00                                 // an attribute unknown here
        """

    static var linkValue: Link {
        Link(
            index: 7, name: "clat0", kind: "ipvlan", hardwareType: 1,
            hardwareAddress: HardwareAddress(bytes: [2, 0, 0, 0, 0, 0x46]), mtu: 1500,
            flags: [.up, .broadcast, .running, .multicast, .lowerUp], operationalState: .up, carrier: true,
            carrierLosses: 5, master: 9, parent: 2, linkNamespace: 0, transmitQueueLength: 1000, ipvlanMode: .l2,
            ipvlanFlags: 1,
            ipv6: IPv6LinkState(
                addressGenerationMode: AddressGenerationMode.none, acceptRA: 2, forwarding: 0, disabled: nil, mtu: 1480)
        )
    }

    /// A tentative IPv6 address made from an RA.
    static let address = """
        50000000 1400 0000 00000000 00000000          // 80 octets, RTM_NEWADDR
        0a 40 40 00 07000000                          // ifaddrmsg: AF_INET6, /64, tentative, universe, index 7
        1400 0100 20010db80000000000000000 0000c1a7   // IFA_ADDRESS
        1400 0600 08070000 100e0000 00000000 00000000 // IFA_CACHEINFO: preferred 1800, valid 3600
        0800 0800 40010000                            // IFA_FLAGS: tentative, manageTemporary
        0500 0b00 02 000000                           // IFA_PROTO kernel_ra
        """

    static func addressValue() throws -> InterfaceAddress {
        var address = InterfaceAddress(
            try IPAddress("2001:db8::c1a7"), prefixLength: 64, on: 7, flags: [.tentative, .manageTemporary],
            preferredLifetime: .seconds(1800), validLifetime: .seconds(3600))
        address.origin = 2
        return address
    }

    /// An IPv4 address on a point-to-point link, without lifetimes or wide flags.
    static let peerAddress = """
        28000000 1500 0000 00000000 00000000          // 40 octets, RTM_DELADDR
        02 20 80 fd 07000000                          // ifaddrmsg: AF_INET, /32, permanent, link, index 7
        0800 0100 c0000002                            // IFA_ADDRESS, the peer
        0800 0200 c0000001                            // IFA_LOCAL
        """

    static func peerAddressValue() throws -> InterfaceAddress {
        var address = InterfaceAddress(
            try IPAddress("192.0.0.1"), prefixLength: 32, on: 7, flags: .permanent, scope: .link)
        address.peer = try IPAddress("192.0.0.2")
        return address
    }

    /// The CLAT's IPv4 default route.
    static let route = """
        60000000 1800 0000 00000000 00000000          // 96 octets, RTM_NEWROUTE
        02 00 00 00 fe 04 00 01 00000000              // rtmsg: AF_INET, /0, main, static, universe, unicast
        0800 0f00 fe000000                            // RTA_TABLE main
        0800 0600 00080000                            // RTA_PRIORITY 2048
        0c00 0800 0800 0200 c8050000                  // RTA_METRICS: RTAX_MTU 1480
        0800 0700 c0000001                            // RTA_PREFSRC
        1600 1200 0a00 fe800000000000000000000000000001 0000 // RTA_VIA: AF_INET6 fe80::1
        0800 0400 07000000                            // RTA_OIF 7
        """

    static func routeValue() throws -> Route {
        Route(
            to: .any(.ipv4), via: try IPAddress("fe80::1"), on: 7, metric: 2048, mtu: 1480,
            preferredSource: try IPAddress("192.0.0.1"))
    }

    /// An IPv6 default route of two routers, by RA.
    static let multipathRoute = """
        78000000 1900 0000 00000000 00000000          // 120 octets, RTM_DELROUTE
        0a 00 00 00 fe 09 00 01 00000000              // rtmsg: AF_INET6, /0, main, ra, universe, unicast
        0800 0f00 fe000000                            // RTA_TABLE main
        0800 0600 00040000                            // RTA_PRIORITY 1024
        0500 1400 01 000000                           // RTA_PREF high
        4400 0900                                     // RTA_MULTIPATH
          1c00 00 00 07000000                         // rtnexthop: 28 octets, weight 1, interface 7
            1400 0500 fe800000000000000000000000000001 // RTA_GATEWAY
          2400 10 02 08000000                         // rtnexthop: 36 octets, link down, weight 3, interface 8
            1400 0500 fe800000000000000000000000000002 // RTA_GATEWAY
            0800 0600 00000000                        // RTA_PRIORITY, of no interest here
        """

    static func multipathRouteValue() throws -> Route {
        var route = Route(to: .any(.ipv6), metric: 1024, origin: .ra)
        route.preference = .high
        route.nextHops = [
            NextHop(gateway: try IPAddress("fe80::1"), outputIndex: 7, weight: 1, flags: []),
            NextHop(gateway: try IPAddress("fe80::2"), outputIndex: 8, weight: 3, flags: .linkDown),
        ]
        return route
    }

    /// A router of the link.
    static let neighbour = """
        3c000000 1c00 0000 00000000 00000000          // 60 octets, RTM_NEWNEIGH
        0a 00 0000 07000000 0200 80 01                // ndmsg: AF_INET6, index 7, reachable, router, unicast
        1400 0100 fe800000000000000000000000000001    // NDA_DST
        0a00 0200 020000000001 0000                   // NDA_LLADDR
        """

    static func neighbourValue() throws -> Neighbour {
        var neighbour = Neighbour(
            try IPAddress("fe80::1"), at: HardwareAddress(bytes: [2, 0, 0, 0, 0, 1]), on: 7, state: .reachable)
        neighbour.isRouter = true
        return neighbour
    }

    static let all = [link, address, peerAddress, route, multipathRoute, neighbour]
}
