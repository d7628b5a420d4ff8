import CLinux
import ClatBase
import ClatNetlink
import ClatTranslator
import Glibc
import Synchronization

/// What `Steering` does, by routes and rules: for where the kernel lets this process load no eBPF. The namespace's own stack
/// forwards between uplink, TUN and host, and hears the ICMPv6 errors that no rule can tell (`ICMPErrorSocket`).
///
/// All of it is in the CLAT's namespace, which nobody else configures. What is there already is taken over, so it can be
/// done again after a translator that ended.
struct RouteSteering: ~Copyable, Sendable {
    /// The table whose one route is the TUN.
    private static let table = RouteTable(rawValue: 464)
    /// The next hop of IPv4 routes to the host: nobody has this address.
    private static let peer = IPv6Address(high: 0xfe80_0000_0000_0000, low: 0x465)
    /// At 0 the stack would answer what is for the translator before any other rule is asked.
    private static let localPriority: UInt32 = 100

    private let netlink: Mutex<NetlinkSocket>
    private let devices: Steering.Devices
    private let uplinkName: String

    /// Puts all in place. The calling thread is in the devices' network namespace.
    init(_ devices: Steering.Devices, configuration: TranslatorConfiguration) throws {
        var netlink = try NetlinkSocket()
        let uplink = try Self.name(of: devices.uplink, &netlink)
        let (host, tun) = (try Self.name(of: devices.host, &netlink), try Self.name(of: devices.tun, &netlink))
        try netlink.setAddressGenerationMode(.none, ofLink: devices.tun)
        try Self.forward(uplink: uplink, host: host, tun: tun)
        try netlink.replaceNeighbour(Neighbour(.v6(Self.peer), at: devices.peerAddress, on: devices.host))
        try netlink.replaceRoute(Route(to: .any(.ipv4), on: devices.tun))
        try netlink.replaceRoute(Route(to: .any(.ipv6), on: devices.tun, table: Self.table))
        try Self.steer(configuration.pairs, uplink: uplink, host: devices.host, &netlink)
        self.netlink = Mutex(netlink)
        self.devices = devices
        uplinkName = uplink
    }

    /// From the next packet on steers by this configuration.
    borrowing func update(_ configuration: TranslatorConfiguration) throws(NetlinkError) {
        try netlink.withLock { netlink throws(NetlinkError) in
            try Self.steer(configuration.pairs, uplink: uplinkName, host: devices.host, &netlink)
        }
    }

    private static func name(of index: UInt32, _ netlink: inout NetlinkSocket) throws(NetlinkError) -> String {
        guard let link = try netlink.link(index: index) else {
            throw NetlinkError(operation: "look up link \(index)", code: ENODEV)
        }
        return link.name
    }

    /// Routes and rules of the mappings, and none of mappings that were.
    private static func steer(
        _ mappings: ArraySlice<Mapping>, uplink: String, host: UInt32, _ netlink: inout NetlinkSocket
    ) throws(NetlinkError) {
        let routes = Set(mappings.map(\.ipv4)).map { Route(to: IPPrefix(.v4($0)), via: .v6(peer), on: host) }
        for route in routes { try netlink.replaceRoute(route) }
        for old in try netlink.routes(.ipv4)
        where old.outputIndex == host && !routes.contains(where: { $0.destination == old.destination }) {
            try netlink.removeRoute(old)
        }
        let (rules, old) = (rules(mappings, uplink: uplink), try netlink.rules(.ipv6))
        for rule in rules where !old.contains(rule) { try netlink.addRule(rule) }
        for rule in old where rule.priority <= localPriority && !rules.contains(rule) {
            try netlink.removeRule(rule)
        }
    }

    /// What comes in by the uplink goes to the TUN, but for ICMPv6 from outside of every PREF64: neighbour discovery, MLD,
    /// native echo. A rule cannot tell ICMPv6 types, so what the link's own nodes send is kept from a PREF64 they are in.
    private static func rules(_ mappings: ArraySlice<Mapping>, uplink: String) -> [Rule] {
        let icmpv6 = UInt8(IPPROTO_ICMPV6)
        var rules: Set<Rule> = [
            Rule(.ipv6, priority: 30, by: uplink, transport: icmpv6, table: .local),
            Rule(.ipv6, priority: 40, by: uplink, table: table),
            Rule(.ipv6, priority: localPriority, table: .local),
        ]
        for mapping in mappings {
            let prefix = mapping.pref64.prefix
            if prefix.length <= 64, prefix.contains(mapping.ipv6) {
                let own = IPPrefix(.v6(IPv6Address(high: mapping.ipv6.high, low: 0)), length: 64)
                rules.insert(
                    Rule(.ipv6, priority: 10, from: own, by: uplink, transport: icmpv6, table: .local))
            }
            rules.insert(
                Rule(
                    .ipv6, priority: 20, from: IPPrefix(.v6(prefix.address), length: prefix.length), by: uplink,
                    table: table))
        }
        // The one for all local addresses first, so that none are missed while the one at 0 is still to go.
        return rules.sorted { $0.priority > $1.priority }
    }

    /// Makes the stack forward. A new namespace has IPv4 settings of the host's, so nothing is taken for granted.
    private static func forward(uplink: String, host: String, tun: String) throws(SystemError) {
        try Sysctl.write("1", to: "ipv4/ip_forward")
        for device in ["all", "default", uplink, host, tun] {
            try Sysctl.write("0", to: "ipv4/conf/\(device)/rp_filter")
            try Sysctl.write("0", to: "ipv4/conf/\(device)/send_redirects")
        }
        for device in [host, tun] { try Sysctl.write("1", to: "ipv4/conf/\(device)/forwarding") }
        // No IPv4 of the link is anybody's here.
        try Sysctl.write("0", to: "ipv4/conf/\(uplink)/forwarding")
        // The host alone gets the stack's Time Exceeded, and a traceroute wants several at once. (icmp_msgs_per_sec holds.)
        try Sysctl.write("0", to: "ipv4/icmp_ratelimit")
        // The stack looks at `all` whether to forward; by the device's own it would say in Neighbor Advertisements that it
        // is a router (RFC 4861 section 4.4), and join the routers' groups.
        try Sysctl.write("1", to: "ipv6/conf/all/forwarding")
        for device in ["default", uplink, host, tun] {
            try Sysctl.write("0", to: "ipv6/conf/\(device)/forwarding")
        }
        try Sysctl.write("0", to: "ipv6/conf/\(tun)/disable_ipv6")
    }
}
