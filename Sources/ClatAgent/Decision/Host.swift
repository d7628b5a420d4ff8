public import ClatBase
public import ClatTranslator

/// What the kernel says of the host: links, addresses, default routes. A mirror, kept by netlink notices.
public struct Host: Hashable, Sendable {
    /// By interface index.
    public var links: [Int: Uplink] = [:]
    /// All of them.
    public var addresses: Set<HostAddress> = []
    /// Those of them that cannot be used yet, as DAD runs.
    public var tentative: Set<HostAddress> = []
    /// Of both families.
    public var defaultRoutes: Set<DefaultRoute> = []

    /// Nothing known.
    public init() {}

    /// Whether that IPv4 address is on a device other than `ours`.
    func isTaken(_ address: IPv4Address, exceptOn ours: Int?) -> Bool {
        addresses.contains { $0.value == .v4(address) && $0.index != ours }
    }

    /// Whether the host itself has that IPv6 address.
    func has(_ address: IPv6Address) -> Bool {
        addresses.contains { $0.value == .v6(address) }
    }

    /// Whether the interface has that address.
    func has(_ address: IPAddress, on index: Int) -> Bool {
        addresses.contains { $0.index == index && $0.value == address }
    }

    /// Whether the host itself can send beyond the link from there.
    func canSend(from index: Int) -> Bool {
        addresses.contains { $0.index == index && $0.isGlobal && !tentative.contains($0) }
    }

    /// Takes in an address; true where it became usable just now.
    mutating func take(_ address: HostAddress, isTentative: Bool) -> Bool {
        let wasUsable = addresses.contains(address) && !tentative.contains(address)
        addresses.insert(address)
        if isTentative { tentative.insert(address) } else { tentative.remove(address) }
        return !wasUsable && !isTentative
    }

    /// Forgets an address, and the IPv4 default routes that the kernel drops along with it, and does not tell: those that prefer
    /// it, and all of an interface that has lost its last.
    mutating func drop(_ address: HostAddress) {
        addresses.remove(address)
        tentative.remove(address)
        guard case .v4(let value) = address.value else { return }
        let isGone = !addresses.contains { $0.value == address.value }
        let wasLast = !addresses.contains { if case .v4 = $0.value { $0.index == address.index } else { false } }
        defaultRoutes = defaultRoutes.filter { route in
            route.isIPv6 || !(wasLast && route.index == address.index || isGone && route.source == value)
        }
    }

    /// How native IPv4 leads out of the interface, if it does: the best IPv4 default route that is not a CLAT's. Where no DHCP server
    /// answers, dhcpcd sets one onto the link for its link-local address (RFC 3927); that leads nowhere.
    func nativeIPv4(on index: Int) -> DefaultRoute? {
        func isNumbered() -> Bool {
            addresses.contains { address in
                if address.index == index, case .v4(let value) = address.value { !value.isLinkLocal } else { false }
            }
        }
        return foreignIPv4Routes.filter { $0.index == index && ($0.gateway != nil || isNumbered()) }
            .min { ($0.metric, $0.gateway?.description ?? "") < ($1.metric, $1.gateway?.description ?? "") }
    }

    /// Whether it is a bridge that joins only containers and virtual machines of the host, if anything: docker0, virbr0 and their
    /// like. On such one the host is the router, and what advertises is a guest. Where the host itself has its way out by it, as in
    /// a container whose uplink is a veth, it is none.
    func isInner(_ uplink: Uplink) -> Bool {
        uplink.kind == "bridge"
            && !links.values.contains { $0.master == uplink.index && !["veth", "tun", "dummy"].contains($0.kind) }
            && !defaultRoutes.contains { $0.isIPv6 && $0.index == uplink.index }
    }

    /// The device of another CLAT that serves the interface: one with an address of 192.0.0.0/29 (RFC 7335) and an IPv4
    /// default route that is not ours. NetworkManager and systemd-networkd put both on the interface itself; clatd and its
    /// like have a TUN, of which nobody can tell what interface it serves.
    func otherCLAT(on index: Int) -> String? {
        foreignIPv4Routes.map(\.index).filter { device in
            (device == index || [.pointToPoint, .other].contains(links[device]?.medium))
                && addresses.contains { address in
                    guard address.index == device, case .v4(let value) = address.value else { return false }
                    return value.isServiceContinuity
                }
        }.compactMap { links[$0]?.name }.min()
    }

    /// IPv4 default routes that are not a CLAT's of ours. There are few, where links and addresses may be many.
    var foreignIPv4Routes: Set<DefaultRoute> {
        defaultRoutes.filter { !$0.isIPv6 && $0.origin != IPv4Route.origin }
    }

    /// What native IPv4 would have as metric there: that of the IPv6 default route, by which programs rank interfaces.
    func nativeMetric(of index: Int) -> Int {
        defaultRoutes.filter { $0.isIPv6 && $0.index == index }.map(\.metric).min() ?? 1024
    }
}

/// Something that happened. Everything the agent does begins with one.
public enum Event: Hashable, Sendable {
    /// A link appeared or changed.
    case link(Uplink)
    /// A link went.
    case linkGone(Int)
    /// A Wi-Fi station has associated, perhaps with another access point than before.
    case associated(uplink: Int)
    /// An address appeared in the host, or changed; it cannot be used while it is tentative.
    case address(HostAddress, isTentative: Bool = false)
    /// An address went from the host.
    case addressGone(HostAddress)
    /// A default route appeared in the host.
    case route(DefaultRoute)
    /// A default route went from the host.
    case routeGone(DefaultRoute)
    /// All default routes of the host, listed anew.
    case routes(Set<DefaultRoute>)
    /// The whole of links, addresses and routes, at start or after notices were lost.
    case snapshot(Host)
    /// The same at the start of a process that goes on with what one before it has left, by uplink.
    case adopted([Int: Adoption], Host)
    /// A Router Advertisement on a link.
    case advertisement(RouterAdvertisement, uplink: Int)
    /// Router Advertisements that were not used.
    case refusedAdvertisement(RouterAdvertisementProblem, count: Int = 1, uplink: Int)
    /// A Router Solicitation went out; `jitter` is -0.1 to 0.1.
    case solicited(uplink: Int, jitter: Double)
    /// What came of a question for ipv4only.arpa; `jitter` is -0.1 to 0.1.
    case answered(DNSOutcome, DNSQuestion, uplink: Int, jitter: Double)
    /// Somebody has told of the link's resolvers, or they were found.
    case resolvers([IPv6Address], ResolverSource, uplink: Int)
    /// Packets of TCP and UDP that the translator has sent on, each way.
    case traffic(outbound: UInt64, inbound: UInt64, uplink: Int)
    /// What came of an echo request through the CLAT.
    case echoed(PathWatch.Echo, through: PREF64, uplink: Int)
    /// The host was asleep.
    case resumed
    /// Somebody wants the routers asked anew, and what failed tried again at once.
    case renew(uplink: Int)
    /// The kernel's word on a CLAT address.
    case clatAddress(IPv6Address, AddressPhase, uplink: Int)
    /// All CLAT addresses that the kernel lists.
    case clatAddresses([IPv6Address: AddressPhase], uplink: Int)
    /// The kernel has asked a neighbour of the CLAT's for its Ethernet address, and it did not answer.
    case unreachable(IPv6Address, uplink: Int)
    /// The CLAT's link on the uplink changed; `isModeStolen` where it is an ipvlan in another mode than L2.
    case clatLink(isModeStolen: Bool, uplink: Int)
    /// The CLAT's link on the uplink was taken away.
    case clatLinkGone(uplink: Int)
    /// A step ended well.
    case done(Step, StepResult, uplink: Int)
    /// A step failed.
    case failed(Step, String, uplink: Int)
    /// The packet thread ended by itself.
    case translatorEnded(String, uplink: Int)
    /// The operator wants something else from now on.
    case configure(Configuration)
    /// Time has passed.
    case timer
    /// The operator wants the agent to end.
    case stop
}

/// How far an address of the namespace is.
public enum AddressPhase: String, Hashable, Sendable, Codable {
    /// DAD runs, and the address may not be used.
    case tentative
    /// DAD runs, and the address may be used already (RFC 4429).
    case optimistic
    /// DAD found nobody else.
    case preferred
    /// Somebody else has it.
    case duplicate
    /// It is no longer there.
    case vanished

    /// Whether packets may go out from it.
    var isUsable: Bool { self == .optimistic || self == .preferred }
}

/// A PREF64 in use and who told it.
public struct Choice: Hashable, Sendable {
    /// The prefix.
    public var prefix: PREF64
    /// Who told it.
    public var source: PREF64Table.Source

    /// Why another one is taken.
    public enum Cause: Hashable, Sendable {
        /// The one before is told no longer, if there was one.
        case gone
        /// Nothing comes back through the one before.
        case dead
        /// The router of the one before is no default router.
        case unrouted
        /// Its source goes before that of the one before.
        case better
    }

    init(_ entry: PREF64Table.Entry) {
        prefix = entry.prefix
        source = entry.source
    }
}

/// Something to do. The runtime carries it out and answers with an event.
public enum Action: Hashable, Sendable {
    /// Send a Router Solicitation; answered by ``Event/solicited(uplink:jitter:)``.
    case solicit(uplink: Int)
    /// Ask a resolver; answered by ``Event/answered(_:_:uplink:jitter:)``.
    case ask(DNSQuestion, uplink: Int)
    /// Look for the resolvers of the link in the system's files; answered by ``Event/resolvers(_:_:uplink:)``.
    case findResolvers(uplink: Int)
    /// Read the translator's counters; answered by ``Event/traffic(outbound:inbound:uplink:)``.
    case sample(uplink: Int)
    /// Send an echo request through the CLAT; answered by ``Event/echoed(_:through:uplink:)``.
    case echo(IPv4Address, through: PREF64, uplink: Int)
    /// A word for the log: another PREF64, or another source of it; nil is none.
    case chose(Choice?, insteadOf: Choice?, Choice.Cause, uplink: Int)
    /// A word for the log: the path has turned out to work, or not to.
    case judged(PathWatch, uplink: Int)
    /// Carry out a step; answered by ``Event/done(_:_:uplink:)`` or ``Event/failed(_:_:uplink:)``.
    case carryOut(Step, uplink: Int)
    /// Let the uplink go that was kept clean of the CLAT's IPv4 addresses.
    case releaseGuard(uplink: Int)
    /// A word for DHCPv4 clients: whether IPv4 can be had without a lease has changed.
    case spare(Bool, uplink: Int)
    /// A word for the log: the state of an uplink changed.
    case report(uplink: Int, Reason)
    /// Everything is undone: the agent may end.
    case finish
}
