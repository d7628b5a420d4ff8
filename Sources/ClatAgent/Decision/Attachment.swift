import ClatBase

/// Signs that the network may be another one, or has forgotten us.
extension UplinkMachine {
    /// The host may be on another network than before, or another one may have taken this one's place: routers and resolvers
    /// are asked at once, and what no router tells again is forgotten.
    mutating func doubtNetwork(now: BootInstant) {
        knowledge.beginDoubt(now: now)
        solicitation.start(now: now)
        knowledge.dns.askAgain(now: now)
    }

    /// How seldom a router that does not answer puts the network in doubt: the kernel says so again every few seconds.
    static let doubtPause: Duration = .seconds(60)

    /// Takes in that the router in use does not answer neighbour discovery: it may have died without a word.
    mutating func doubtRouter(now: BootInstant) {
        guard knowledge.doubt == nil, routerDoubted.map({ $0 + Self.doubtPause <= now }) ?? true else { return }
        routerDoubted = now
        doubtNetwork(now: now)
    }

    /// Asks routers and resolvers anew, and tries again at once what failed.
    mutating func renew(now: BootInstant) {
        solicitation.start(now: now)
        knowledge.dns.askAgain(now: now)
        path.checkAgain(now: now)
        retryAt = retryAt.map { min($0, now) }
    }

    /// Takes in that the host was asleep: it may be on another network, and a switch may have forgotten the CLAT's address.
    mutating func resume(now: BootInstant) {
        renew(now: now)
        knowledge.beginDoubt(endsInSilence: true, now: now)
        standing.announced = []
    }

    /// Takes in that a Wi-Fi station has associated, or has its keys: perhaps with another access point, which knows nothing of the
    /// CLAT's addresses.
    mutating func associate(now: BootInstant) {
        doubtNetwork(now: now)
        standing.announced = []
    }
}
