import CLibMnl
public import ClatBase
import Glibc

/// A route as RTM_NEWROUTE tells of it, or as it shall be added (rtnetlink(7), linux/rtnetlink.h).
public struct Route: Hashable, Sendable {
    /// What it leads to; its family is the route's.
    public var destination: IPPrefix
    /// The next hop; nil where the destination is on the link. An IPv4 route may have an IPv6 one (RFC 5549), as in
    /// `default via inet6 fe80::1`.
    public var gateway: IPAddress?
    /// The interface; nil for routes without one (unreachable, multipath).
    public var outputIndex: UInt32?
    /// Of two routes to one destination, that of the lower metric counts. Absent is 0 for IPv4; the kernel makes 1024 of an
    /// IPv6 route's 0.
    public var metric: UInt32
    /// The path MTU (RTAX_MTU), in octets.
    public var mtu: Int?
    /// The MSS TCP tells the other side (RTAX_ADVMSS), in octets.
    public var advertisedMSS: Int?
    /// The source address of new connections.
    public var preferredSource: IPAddress?
    /// Who made it.
    public var origin: RouteOrigin
    /// The table it is in.
    public var table: RouteTable
    /// What becomes of a packet.
    public var kind: RouteKind
    /// How far the destination is; the kernel looks at it for IPv4 alone.
    public var scope: Scope
    /// RTNH_F_ and RTM_F_ flags; of these only `onLink` is sent.
    public var flags: RouteFlags
    /// The hops of a multipath route, read but never written.
    public var nextHops: [NextHop] = []
    /// The preference of an IPv6 router (RFC 4191 section 2.1).
    public var preference: RouterPreference?

    /// A route to be added. Where no scope is given it is `link` for an IPv4 unicast without a gateway, else `universe`.
    public init(
        to destination: IPPrefix, via gateway: IPAddress? = nil, on outputIndex: UInt32? = nil, metric: UInt32 = 0,
        mtu: Int? = nil, advertisedMSS: Int? = nil, preferredSource: IPAddress? = nil, origin: RouteOrigin = .static,
        table: RouteTable = .main, kind: RouteKind = .unicast, scope: Scope? = nil, flags: RouteFlags = []
    ) {
        self.destination = destination
        self.gateway = gateway
        self.outputIndex = outputIndex
        self.metric = metric
        self.mtu = mtu
        self.advertisedMSS = advertisedMSS
        self.preferredSource = preferredSource
        self.origin = origin
        self.table = table
        self.kind = kind
        let direct = destination.address.family == .ipv4 && kind == .unicast && gateway == nil
        self.scope = scope ?? (direct ? .link : .universe)
        self.flags = flags
    }

    /// IPv4 or IPv6.
    public var family: AddressFamily { destination.address.family }

    /// Whether it is a way to everywhere: length 0 and unicast.
    public var isDefault: Bool { destination.length == 0 && kind == .unicast }
}

/// One hop of a multipath route (struct rtnexthop).
public struct NextHop: Hashable, Sendable {
    /// The next hop; nil where the destination is on the link.
    public var gateway: IPAddress?
    /// The interface.
    public var outputIndex: UInt32
    /// Its share, 1 to 256.
    public var weight: Int
    /// RTNH_F_ flags.
    public var flags: RouteFlags
}

/// The RTNH_F_ and RTM_F_ flags of a route.
public struct RouteFlags: OptionSet, Hashable, Sendable {
    /// The kernel's bits.
    public var rawValue: UInt32
    /// The kernel's bits.
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    private init(_ flag: CInt) { rawValue = UInt32(bitPattern: flag) }

    /// RTNH_F_DEAD: the interface is down.
    public static let dead = RouteFlags(RTNH_F_DEAD)
    /// RTNH_F_ONLINK: the gateway is on the link, whatever the addresses say.
    public static let onLink = RouteFlags(RTNH_F_ONLINK)
    /// RTNH_F_LINKDOWN: the interface has no carrier.
    public static let linkDown = RouteFlags(RTNH_F_LINKDOWN)
    /// RTM_F_CLONED: the answer of a lookup or a cached exception, not an entry of the table.
    public static let cloned = RouteFlags(RTM_F_CLONED)
}

/// Who made a route (RTPROT_, /etc/iproute2/rt_protos).
public struct RouteOrigin: RawRepresentable, Hashable, Sendable {
    /// The kernel's number.
    public var rawValue: UInt8
    /// The kernel's number.
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    private init(_ origin: CInt) { rawValue = UInt8(truncatingIfNeeded: origin) }

    /// Not told.
    public static let unspecified = RouteOrigin(RTPROT_UNSPEC)
    /// The kernel, along with an address.
    public static let kernel = RouteOrigin(RTPROT_KERNEL)
    /// At boot; also what `ip route` says by default.
    public static let boot = RouteOrigin(RTPROT_BOOT)
    /// The administrator.
    public static let `static` = RouteOrigin(RTPROT_STATIC)
    /// A Router Advertisement.
    public static let ra = RouteOrigin(RTPROT_RA)
    /// DHCP.
    public static let dhcp = RouteOrigin(RTPROT_DHCP)
}

/// A routing table.
public struct RouteTable: RawRepresentable, Hashable, Sendable {
    /// The kernel's number; zero is none.
    public var rawValue: UInt32
    /// The kernel's number.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// 254, the one one means.
    public static let main = RouteTable(rawValue: RT_TABLE_MAIN.rawValue)
    /// 255, the addresses of this host.
    public static let local = RouteTable(rawValue: RT_TABLE_LOCAL.rawValue)
    /// 253, looked up last.
    public static let `default` = RouteTable(rawValue: RT_TABLE_DEFAULT.rawValue)
}

/// What becomes of a packet that takes a route (RTN_).
public struct RouteKind: RawRepresentable, Hashable, Sendable {
    /// The kernel's number.
    public var rawValue: UInt8
    /// The kernel's number.
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    private init(_ kind: Int) { rawValue = UInt8(truncatingIfNeeded: kind) }

    /// Goes to the next hop or the link.
    public static let unicast = RouteKind(RTN_UNICAST)
    /// Is for this host.
    public static let local = RouteKind(RTN_LOCAL)
    /// Is for all on the link (IPv4).
    public static let broadcast = RouteKind(RTN_BROADCAST)
    /// Is for this host as one of several (IPv6).
    public static let anycast = RouteKind(RTN_ANYCAST)
    /// Is for a group.
    public static let multicast = RouteKind(RTN_MULTICAST)
    /// Is dropped without a word.
    public static let blackhole = RouteKind(RTN_BLACKHOLE)
    /// Is refused with an ICMP unreachable.
    public static let unreachable = RouteKind(RTN_UNREACHABLE)
    /// Is refused with an ICMP prohibited.
    public static let prohibit = RouteKind(RTN_PROHIBIT)
    /// Goes on to the next policy rule.
    public static let `throw` = RouteKind(RTN_THROW)
}

/// The preference of a router (RFC 4191 section 2.1), in two bits, signed.
public struct RouterPreference: RawRepresentable, Hashable, Sendable {
    /// The two bits.
    public var rawValue: UInt8
    /// The two bits.
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// 00
    public static let medium = RouterPreference(rawValue: UInt8(ICMPV6_ROUTER_PREF_MEDIUM))
    /// 01
    public static let high = RouterPreference(rawValue: UInt8(ICMPV6_ROUTER_PREF_HIGH))
    /// 11
    public static let low = RouterPreference(rawValue: UInt8(ICMPV6_ROUTER_PREF_LOW))
}

// MARK: Verbs

extension NetlinkSocket {
    /// The routes of a family in one table, or in all where nil is given. A table that is not there has none.
    public mutating func routes(
        _ family: AddressFamily, table: RouteTable? = .main
    ) throws(NetlinkError) -> [Route] {
        do throws(NetlinkError) {
            return try collect("list the routes", .routes(family, table: table)) {
                type, bytes, body throws(MalformedMessage) in
                guard type == RTM_NEWROUTE, let route = try Route(bytes, body) else { return nil }
                // Before Linux 4.20 the kernel lists all tables.
                return table == nil || route.table == table ? route : nil
            }
        } catch {
            guard error.code == ENOENT else { throw error }
            return []
        }
    }

    /// Adds a route. One to the same destination with the same metric and table is EEXIST.
    public mutating func addRoute(_ route: Route) throws(NetlinkError) {
        try perform("add route \(route)", .newRoute(route, NLM_F_CREATE | NLM_F_EXCL))
    }

    /// Adds a route after those to the same destination with the same metric and table, which go on counting before it
    /// (IPv4). The very same route is EEXIST.
    public mutating func appendRoute(_ route: Route) throws(NetlinkError) {
        try perform("append route \(route)", .newRoute(route, NLM_F_CREATE | NLM_F_APPEND))
    }

    /// Adds a route, in place of the first to the same destination with the same metric and table, if there is one, whoever
    /// made it.
    public mutating func replaceRoute(_ route: Route) throws(NetlinkError) {
        try perform("replace route \(route)", .newRoute(route, NLM_F_CREATE | NLM_F_REPLACE))
    }

    /// Removes a route. One that is not there is ESRCH.
    public mutating func removeRoute(_ route: Route) throws(NetlinkError) {
        try perform("remove route \(route)", .deleteRoute(route))
    }

    /// The way a packet to `destination` would take (RTM_GETROUTE), from a source or by an interface if given; nil where
    /// there is none (ENETUNREACH, EHOSTUNREACH). A route of kind `blackhole` is EINVAL, of kind `prohibit` EACCES.
    public mutating func route(
        to destination: IPAddress, from source: IPAddress? = nil, on index: UInt32? = nil
    ) throws(NetlinkError) -> Route? {
        let operation = "look up the route to \(destination)"
        do throws(NetlinkError) {
            return try collect(operation, .route(to: destination, from: source, on: index)) {
                type, bytes, body throws(MalformedMessage) in
                type == RTM_NEWROUTE ? try Route(bytes, body) : nil
            }.first
        } catch {
            guard error.code == ENETUNREACH || error.code == EHOSTUNREACH else { throw error }
            return nil
        }
    }
}

extension Route: CustomStringConvertible {
    /// `0.0.0.0/0 via fe80::1 on link 7`
    public var description: String {
        "\(destination)" + (gateway.map { " via \($0)" } ?? "") + (outputIndex.map { " on link \($0)" } ?? "")
    }
}
