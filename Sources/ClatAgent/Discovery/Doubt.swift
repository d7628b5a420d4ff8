import ClatBase

/// The host may have come to another network unseen: by another access point of the same name, or in its sleep. What routers
/// told goes on being used, but they are asked, and what none of them tells again in time is forgotten.
struct Doubt: Hashable, Sendable, Codable {
    /// What was heard before this is in doubt.
    var since: BootInstant
    /// Whether all is forgotten where nobody answers at all, as after sleep. Otherwise it stays: no network is no better.
    var endsInSilence: Bool
    /// When the first advertisement came since.
    var answered: BootInstant?
    /// Routers that have told a prefix again, which shows that this is their link still: all that they told stands.
    var confirmed: Set<IPv6Address> = []

    /// For how long where somebody has answered: two solicitations, for one may be lost.
    static let answeredLimit: Duration = .seconds(8)
    /// For how long after that answer at least: more than the 3 s that routers keep between two multicast advertisements
    /// (RFC 4861 section 6.2.6), and than the half second by which they delay an answer.
    static let patience: Duration = .seconds(5)
    /// For how long where nobody answers: three solicitations (RFC 4861 section 6.3.7) and the time to answer the last.
    static let silentLimit: Duration = .seconds(16)

    /// When what is still in doubt is forgotten.
    var end: BootInstant? {
        if let answered { return max(since + Self.answeredLimit, answered + Self.patience) }
        return endsInSilence ? since + Self.silentLimit : nil
    }

    /// Whether the word of a router is in doubt that was heard then.
    func concerns(_ router: IPv6Address, _ heard: BootInstant) -> Bool {
        heard < since && !confirmed.contains(router)
    }
}

extension LinkKnowledge {
    /// Begins to doubt what routers have told.
    mutating func beginDoubt(endsInSilence: Bool = false, now: BootInstant) {
        let endsInSilence = endsInSilence || doubt?.endsInSilence == true
        doubt = isSilent ? nil : Doubt(since: now, endsInSilence: endsInSilence)
    }

    /// Words younger than this are not doubted because of another router.
    static let freshness: Duration = .seconds(10)

    /// Whether a router that was not known brings all that a CLAT needs, while nobody else was heard lately: the network may
    /// be another one, or that router have taken the place of one that has gone.
    func isSuccessor(_ advertisement: RouterAdvertisement, now: BootInstant) -> Bool {
        advertisement.routerLifetime > 0 && advertisement.pref64s.contains { $0.lifetime > 0 }
            && advertisement.prefixes.contains { $0.autonomous && $0.preferredLifetime > 0 }
            && routers.allSatisfy { $0.heard + Self.freshness < now }
    }

    /// An advertisement has come: where nothing is in doubt any more the doubt is over.
    mutating func allayDoubt(now: BootInstant) {
        guard var doubt else { return }
        doubt.answered = doubt.answered ?? now
        let words =
            routers.map { ($0.address, $0.heard) } + prefixes.map { ($0.router, $0.heard) }
            + routes.map { ($0.router, $0.heard) } + rdnss.map { ($0.router, $0.heard) }
            + pref64s.entries.compactMap { entry in entry.router.map { ($0, entry.heard) } }
        self.doubt = words.contains { doubt.concerns($0.0, $0.1) } ? doubt : nil
    }

    /// Forgets what was not told again in time.
    mutating func endDoubt(now: BootInstant) {
        guard let doubt, let end = doubt.end, end <= now else { return }
        self.doubt = nil
        routers.removeAll { doubt.concerns($0.address, $0.heard) }
        prefixes.removeAll { doubt.concerns($0.router, $0.heard) }
        routes.removeAll { doubt.concerns($0.router, $0.heard) }
        rdnss.removeAll { doubt.concerns($0.router, $0.heard) }
        // No router has shown that this is the network of before, of which others told.
        if doubt.confirmed.isEmpty { otherResolvers = otherResolvers.filter { $0.value.heard >= doubt.since } }
        useResolvers(now: now)
        let resolvers = Set(dns.resolvers.map(\.address))
        pref64s.forget { entry in
            switch entry.source {
            case .configuration: false
            case .router(let address): doubt.concerns(address, entry.heard)
            case .resolver(let address): entry.heard < doubt.since && !resolvers.contains(address)
            }
        }
    }
}
