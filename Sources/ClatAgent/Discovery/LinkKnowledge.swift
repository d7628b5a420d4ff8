public import ClatBase
import ClatTranslator

/// What is known of one link: what its Router Advertisements have told (routers, prefixes, PREF64s, resolvers, MTU), and
/// what its resolvers have.
public struct LinkKnowledge: Hashable, Sendable, Codable {
    /// A router that advertises on the link.
    public struct Router: Hashable, Sendable, Codable {
        /// Its link-local address.
        public var address: IPv6Address
        /// Among default routers (RFC 4191).
        public var preference: RouterAdvertisement.Preference
        /// When it ceases to be a default router; past already where its router lifetime was 0.
        public var expires: BootInstant
        /// Its Ethernet address, if it told.
        public var hardwareAddress: HardwareAddress?
        /// Its MTU option, octets.
        public var mtu: Int?
        /// When it was last heard.
        public var heard: BootInstant
    }

    /// A prefix of the link, from one router.
    public struct Prefix: Hashable, Sendable, Codable {
        /// Who sent it.
        public var router: IPv6Address
        /// The prefix.
        public var prefix: IPv6Prefix
        /// L flag.
        public var onLink: Bool
        /// A flag.
        public var autonomous: Bool
        /// When addresses of it become invalid; nil is never.
        public var validUntil: BootInstant?
        /// When addresses of it become deprecated; nil is never.
        public var preferredUntil: BootInstant?
        /// When it was last heard.
        public var heard: BootInstant
    }

    /// A destination that one router leads to, whether it is a default router or not (RFC 4191).
    struct Route: Hashable, Sendable, Codable {
        var router: IPv6Address
        var prefix: IPv6Prefix
        var preference: RouterAdvertisement.Preference
        /// nil is never.
        var expires: BootInstant?
        var heard: BootInstant
    }

    /// A resolver, as one router tells.
    struct RDNSS: Hashable, Sendable, Codable {
        var router: IPv6Address
        var server: IPv6Address
        /// nil is never.
        var expires: BootInstant?
        var heard: BootInstant
    }

    /// Resolvers, as somebody else than a router tells.
    struct OtherResolvers: Hashable, Sendable, Codable {
        var servers: [IPv6Address]
        var heard: BootInstant
    }

    /// In the order first heard.
    public internal(set) var routers: [Router] = []
    /// In the order first heard.
    public internal(set) var prefixes: [Prefix] = []
    /// Everybody's PREF64s.
    public internal(set) var pref64s = PREF64Table()
    /// Whom to ask for ipv4only.arpa, and when.
    public internal(set) var dns = DNSDiscovery()
    /// In the order first heard.
    var routes: [Route] = []
    /// In the order first heard.
    var rdnss: [RDNSS] = []
    /// What others than routers have told.
    var otherResolvers: [ResolverSource: OtherResolvers] = [:]
    /// When routers were last asked because something was about to run out.
    var refreshAsked = BootInstant(nanoseconds: 0)
    /// Whether the host may have come to another network; see ``Doubt``.
    var doubt: Doubt?
    /// Whether no router is known: none was heard, or what they told has run out.
    public var isSilent: Bool { routers.isEmpty }

    /// Routers, and prefixes, kept at most: a flood costs nothing.
    public static let routerCapacity = 16
    /// See ``routerCapacity``.
    public static let prefixCapacity = 32
    /// See ``routerCapacity``.
    public static let resolverCapacity = 16
    /// See ``routerCapacity``.
    public static let routeCapacity = 32
    /// Seconds; the most that a header can say, for an option that says more, or for ever.
    private static let longestRouterLifetime = 65535

    /// What outlives the process: resolvers are asked anew.
    private enum CodingKeys: String, CodingKey {
        case routers, prefixes, pref64s, routes, rdnss, otherResolvers, refreshAsked, doubt
    }

    /// Whether no more is known than ever can be learnt.
    var isWithinCapacity: Bool {
        routers.count <= Self.routerCapacity && prefixes.count <= Self.prefixCapacity && pref64s.isWithinCapacity
            && rdnss.count <= Self.resolverCapacity && routes.count <= Self.routeCapacity
            && doubt?.confirmed.count ?? 0 <= Self.routerCapacity
            && otherResolvers.values.allSatisfy { $0.servers.count <= Self.resolverCapacity }
    }

    /// Nothing known.
    public init() {}

    /// Takes in an advertisement; how much of it there was no room for.
    @discardableResult
    public mutating func hear(_ advertisement: RouterAdvertisement, now: BootInstant) -> Int {
        var router = Router(
            address: advertisement.router, preference: advertisement.preference,
            expires: now + .seconds(advertisement.routerLifetime),
            hardwareAddress: advertisement.hardwareAddress, mtu: advertisement.mtu, heard: now)
        // What it says of its route to ::/0 goes before what its header says (RFC 4191 section 3.1).
        for route in advertisement.routes where route.prefix.length == 0 {
            router.preference = route.preference
            router.expires = now + .seconds(min(Int(route.lifetime), Self.longestRouterLifetime))
        }
        if let index = routers.firstIndex(where: { $0.address == router.address }) {
            let old = routers[index]
            // What an advertisement leaves out stays as it was (RFC 4861 section 6.3.4), unless another router may have sent it.
            if doubt?.concerns(old.address, old.heard) != true {
                router.hardwareAddress = router.hardwareAddress ?? old.hardwareAddress
                router.mtu = router.mtu ?? old.mtu
            }
            routers[index] = router
        } else if routers.count < Self.routerCapacity {
            if doubt == nil, isSuccessor(advertisement, now: now) { beginDoubt(now: now) }
            routers.append(router)
        } else {
            return 1
        }
        var surplus = 0
        for information in advertisement.prefixes where !hear(information, from: router.address, now: now) {
            surplus += 1
        }
        for information in advertisement.routes
        where information.prefix.length > 0 && !hear(information, from: router.address, now: now) {
            surplus += 1
        }
        for option in advertisement.rdnss {
            for server in option.servers
            where !hear(server, lifetime: option.lifetime, from: router.address, now: now) { surplus += 1 }
        }
        let refused = pref64s.refused
        pref64s.hear(advertisement, now: now)
        useResolvers(now: now)
        allayDoubt(now: now)
        return surplus + pref64s.refused - refused
    }

    /// False where there is no room for one more.
    private mutating func hear(
        _ information: RouterAdvertisement.PrefixInformation, from router: IPv6Address, now: BootInstant
    ) -> Bool {
        func end(_ lifetime: UInt32) -> BootInstant? {
            lifetime == .max ? nil : now + .seconds(Int(lifetime))
        }
        var prefix = Prefix(
            router: router, prefix: information.prefix, onLink: information.onLink,
            autonomous: information.autonomous, validUntil: end(information.validLifetime),
            preferredUntil: end(information.preferredLifetime), heard: now)
        if let index = prefixes.firstIndex(where: { $0.router == router && $0.prefix == prefix.prefix }) {
            // A single advertisement cannot cut a valid lifetime below two hours (RFC 4862 section 5.5.3 e).
            let floor = now + .seconds(7200)
            if let new = prefix.validUntil, new < floor {
                prefix.validUntil = max(new, min(prefixes[index].validUntil ?? floor, floor))
            }
            if let doubt, doubt.since > prefixes[index].heard { self.doubt?.confirmed.insert(router) }
            prefixes[index] = prefix
        } else if information.validLifetime > 0 {
            guard prefixes.count < Self.prefixCapacity else { return false }
            prefixes.append(prefix)
        }
        return true
    }

    /// Drops what has run out. A router stays known while it may still tell something: until its last word is an hour
    /// old.
    public mutating func expire(now: BootInstant) {
        endDoubt(now: now)
        pref64s.expire(now: now)
        prefixes.removeAll { prefix in prefix.validUntil.map { $0 <= now } ?? false }
        routes.removeAll { route in route.expires.map { $0 <= now } ?? false }
        let known = rdnss.count
        rdnss.removeAll { entry in entry.expires.map { $0 <= now } ?? false }
        if rdnss.count != known { useResolvers(now: now) }
        routers.removeAll { router in
            router.expires <= now && router.heard + .seconds(3600) <= now
                && !pref64s.entries.contains { $0.router == router.address }
                && !routes.contains { $0.router == router.address }
        }
        let defaultRouters = routers.filter { $0.expires > now }.map(\.address)
        pref64s.prefer(
            pref64s.entries.filter { entry in
                (defaultRouters + leading(to: entry).map(\.router)).contains { $0 == entry.router }
            })
    }

    /// When ``expire(now:)``, a deprecation, a refresh or a question is next due.
    public func nextChange(after now: BootInstant) -> BootInstant? {
        let moments =
            prefixes.flatMap { [$0.validUntil, $0.preferredUntil] } + routers.map { $0.expires }
            + routes.map(\.expires) + rdnss.map(\.expires) + [
                pref64s.nextExpiry, dns.nextDeadline, nextRefresh, doubt?.end,
            ]
        return moments.compactMap { $0 }.filter { $0 > now }.min()
    }

    /// The routes of a host on this link that sends through one router. A prefix of no length is left out: not every address is on
    /// the link, whoever says so.
    func routing(through router: Router) -> Routing {
        Routing(
            router: router.address, hardwareAddress: router.hardwareAddress,
            onLink: Set(prefixes.filter { $0.onLink && $0.prefix.length > 0 }.map(\.prefix)).sorted {
                ($0.address, $0.length) < ($1.address, $1.length)
            })
    }

    /// The prefix to make the CLAT address of, for flows towards a PREF64 through `router`: autonomous and /64; among those
    /// a preferred one (RFC 6724 rule 3: a deprecated one is better than none), one of that router (rule 5.5), matching in
    /// kind (rule 6), the current one, longest match (rule 8), first heard.
    public func prefix(
        for entry: PREF64Table.Entry, through router: IPv6Address, current: IPv6Prefix?, now: BootInstant
    ) -> Prefix? {
        let target = entry.prefix.prefix.address
        func rank(_ prefix: Prefix) -> (Int, Int, Int, Int, Int) {
            (
                prefix.preferredUntil.map { $0 > now } ?? true ? 1 : 0,
                prefix.router == router ? 1 : 0,
                prefix.prefix.address.isUniqueLocal == target.isUniqueLocal ? 1 : 0,
                prefix.prefix == current ? 1 : 0,
                min((prefix.prefix.address.high ^ target.high).leadingZeroBitCount, 64)
            )
        }
        return prefixes.filter { $0.autonomous && $0.prefix.length == 64 }.reduce(nil) { best, prefix in
            guard let best, rank(best) >= rank(prefix) else { return prefix }
            return best
        }
    }

    /// The link's IPv6 MTU: its own, or a smaller one that the router tells.
    public func mtu(linkMTU: Int, router: IPv6Address) -> Int {
        let told = routers.first { $0.address == router }?.mtu ?? linkMTU
        return max(1280, min(linkMTU, told))
    }
}
