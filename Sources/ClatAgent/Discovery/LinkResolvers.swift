import ClatBase

/// Who can be asked on the link: its resolvers for ipv4only.arpa, and its routers once more before something runs out.
extension LinkKnowledge {
    /// Takes in one server of an RDNSS option (RFC 8106 section 5.1); lifetime 0 withdraws it. False where there is no room
    /// for one more.
    mutating func hear(
        _ server: IPv6Address, lifetime: UInt32, from router: IPv6Address, now: BootInstant
    ) -> Bool {
        let known = rdnss.firstIndex { $0.router == router && $0.server == server }
        let expires = lifetime == .max ? nil : now + .seconds(Int(lifetime))
        if lifetime == 0 {
            if let known { rdnss.remove(at: known) }
        } else if let known {
            (rdnss[known].expires, rdnss[known].heard) = (expires, now)
        } else if !server.isMulticast, !server.isLoopback, server != .unspecified {
            guard rdnss.count < Self.resolverCapacity else { return false }
            rdnss.append(RDNSS(router: router, server: server, expires: expires, heard: now))
        }
        return true
    }

    /// Takes in the resolvers of the link as somebody else than a router tells them; they replace what that source told
    /// before. The system's files are one source: what is found in one of them shows that nothing better is in another.
    mutating func tell(_ servers: [IPv6Address], from source: ResolverSource, now: BootInstant) {
        if source != .told { otherResolvers = otherResolvers.filter { $0.key == .told } }
        otherResolvers[source] = OtherResolvers(servers: Array(servers.prefix(Self.resolverCapacity)), heard: now)
        useResolvers(now: now)
    }

    /// The link's own together, in the order of ``ResolverSource``; else what the system holds for whichever link.
    mutating func useResolvers(now: BootInstant) {
        func others(_ source: ResolverSource) -> [(address: IPv6Address, source: ResolverSource)] {
            (otherResolvers[source]?.servers ?? []).map { ($0, source) }
        }
        let choices = [
            rdnss.map { ($0.server, .routerAdvertisement) } + others(.told) + others(.systemd), others(.resolvConf),
        ]
        dns.use(choices.first { !$0.isEmpty } ?? [], now: now)
    }

    /// Takes in what came of a question; false where it was not open any more.
    mutating func take(_ outcome: DNSOutcome, of question: DNSQuestion, jitter: Double, now: BootInstant) -> Bool {
        guard dns.take(outcome, of: question, jitter: jitter, now: now) else { return false }
        switch outcome {
        case .prefixes(let prefixes, let lifetime):
            let end = now + DNSDiscovery.lifetime(lifetime)
            pref64s.hear(prefixes, fromResolver: question.server, until: end, now: now)
        case .none: pref64s.hear([], fromResolver: question.server, until: now, now: now)
        case .failed:
            guard let end = dns.graceEnd(of: question.server, now: now) else { break }
            pref64s.extend(resolver: question.server, to: end)
        }
        return true
    }

    /// Parts of a lifetime after which a router that has not told it again is asked: late enough to be rare, and twice
    /// because an answer may be lost.
    private static let refreshParts = [0.9, 0.97]

    /// Whether nobody better than a resolver tells a PREF64, or what routers told is about to run out unrefreshed: then DNS
    /// is asked in time for its answer to take over.
    func needsDNS(now: BootInstant) -> Bool {
        pref64s.entries.allSatisfy { entry in
            switch entry.source {
            case .configuration: false
            case .router: moments(heard: entry.heard, expires: entry.expires).last.map { $0 <= now } ?? false
            case .resolver: true
            }
        }
    }

    /// When routers are next asked because something runs out.
    var nextRefresh: BootInstant? { refreshMoments.filter { $0 > refreshAsked }.min() }

    /// Whether they are to be asked now; said once.
    mutating func takeRefresh(now: BootInstant) -> Bool {
        guard let nextRefresh, nextRefresh <= now else { return false }
        refreshAsked = now
        return true
    }

    private var refreshMoments: [BootInstant] {
        let words: [(heard: BootInstant, expires: BootInstant?)] =
            routers.map { ($0.heard, $0.expires) } + prefixes.map { ($0.heard, $0.preferredUntil) }
            + pref64s.entries.filter { $0.router != nil }.map { ($0.heard, $0.expires) }
        return words.flatMap { moments(heard: $0.heard, expires: $0.expires) }
    }

    private func moments(heard: BootInstant, expires: BootInstant?) -> [BootInstant] {
        guard let expires, heard < expires else { return [] }
        return Self.refreshParts.map { heard + (expires - heard) * $0 }
    }
}
