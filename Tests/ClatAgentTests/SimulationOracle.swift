import ClatBase
import ClatTranslator

@testable import ClatAgent

/// What routers have told on one link, kept apart from what the agent knows, and by simpler rules: whether IPv4 must be there, may
/// be there, or must not.
///
/// Where the network may be another one (``doubt(now:)``) a word is certain only once it has been told again; until then IPv4 may
/// rest upon it and need not.
struct LinkOracle {
    /// A word that holds for a time.
    private struct Word {
        var until: BootInstant
        /// Told since the network was last in doubt.
        var isCertain: Bool
        var heard: BootInstant
    }

    private enum Key: Hashable {
        case router(Int)
        case prefix(router: Int, Int)
        case pref64(router: Int, Int)

        var router: Int {
            switch self {
            case .router(let router), .prefix(let router, _), .pref64(let router, _): router
            }
        }
    }

    private var words: [Key: Word] = [:]
    /// When all that is not certain has gone, as nobody has answered after sleep.
    private var silenceEnds: BootInstant?

    /// The carrier was lost: another network.
    mutating func reset() { self = LinkOracle() }

    /// Takes in an advertisement; a prefix is of /64, autonomous, and valid for an hour. A router that brings all while the others
    /// are silent puts these in doubt.
    mutating func hear(
        router: Int, lifetime: Int, pref64: (number: Int, lifetime: Int)?, prefixes: [Int], isCertain: Bool,
        now: BootInstant
    ) {
        pass(now: now)
        silenceEnds = nil
        let others = words.keys.filter { $0.router != router }
        if lifetime > 0, let pref64, pref64.lifetime > 0, !prefixes.isEmpty {
            for key in others where words[key].map({ $0.heard + .seconds(9) < now }) == true {
                words[key]?.isCertain = false
            }
        }
        func tell(_ key: Key, _ lifetime: Int) {
            words[key] = lifetime > 0 ? Word(until: now + .seconds(lifetime), isCertain: isCertain, heard: now) : nil
        }
        tell(.router(router), lifetime)
        if let pref64 { tell(.pref64(router: router, pref64.number), pref64.lifetime) }
        for prefix in prefixes { tell(.prefix(router: router, prefix), 3600) }
    }

    /// The network may be another one from now on; after sleep silence tells that it is.
    mutating func doubt(endsInSilence: Bool = false, now: BootInstant) {
        pass(now: now)
        for key in words.keys { words[key]?.isCertain = false }
        if endsInSilence || silenceEnds != nil, !words.isEmpty { silenceEnds = now + .seconds(16) }
    }

    private mutating func pass(now: BootInstant) {
        if let silenceEnds, silenceEnds <= now {
            words = words.filter { $0.value.isCertain }
            self.silenceEnds = nil
        }
        words = words.filter { $0.value.until > now }
    }

    /// Whether router, prefix and PREF64 are told; `certainly` is by words that are not in doubt.
    mutating func isServed(certainly: Bool, needsPREF64: Bool, now: BootInstant) -> Bool {
        pass(now: now)
        let told = words.filter { !certainly || $0.value.isCertain }.keys
        func has(_ isOne: (Key) -> Bool) -> Bool { told.contains(where: isOne) }
        return has { if case .router = $0 { true } else { false } }
            && has { if case .prefix = $0 { true } else { false } }
            && (!needsPREF64 || has { if case .pref64 = $0 { true } else { false } })
    }
}

/// What the whole host is like, as far as it decides about IPv4 on an uplink.
struct HostOracle {
    /// By interface index.
    var told: [Int: LinkOracle] = [:]
    /// Whether a resolver has ever told a prefix: then one may be known by DNS.
    var resolversTold = false
    /// Until when answers that have ceased to come may put any network in doubt.
    var unansweredUntil = BootInstant(nanoseconds: 0)

    /// Whether the rules allow IPv4 on an uplink, and whether they demand it. Addresses of 192.0.0.0/29 are not looked at.
    mutating func verdict(
        _ index: Int, _ links: [Int: Uplink], _ addresses: Set<HostAddress>, _ routes: Set<DefaultRoute>,
        _ configuration: Configuration, now: BootInstant
    ) -> (may: Bool, must: Bool) {
        guard let link = links[index], link.isUp, link.isRunning, link.master == nil,
            !configuration.disabled.contains(link.name), !configuration.excluded.contains(link.name),
            configuration.interfaces.isEmpty || configuration.interfaces.contains(link.name)
        else { return (false, false) }
        // All IPv4 addresses that an uplink ever has here are those of another CLAT. Onto the link leads nothing without one.
        func hasOther(_ index: Int) -> Bool {
            addresses.contains { if case .v4 = $0.value { $0.index == index } else { false } }
        }
        // Of one on a point-to-point device nobody can tell what it serves.
        let anywhere = routes.contains {
            !$0.isIPv6 && links[$0.index]?.medium == .pointToPoint && hasOther($0.index)
        }
        if anywhere { return (false, false) }
        let isOther = hasOther(index)
        let out = routes.filter { !$0.isIPv6 && $0.index == index && ($0.gateway != nil || isOther) }
        let policy = configuration.policy(for: link.name)
        if !out.isEmpty, isOther || policy.nativeIPv4 == .standDown { return (false, false) }
        var oracle = told[index] ?? LinkOracle()
        defer { told[index] = oracle }
        let isStatic = policy.pref64 != nil
        let may = oracle.isServed(
            certainly: false, needsPREF64: !isStatic && !(resolversTold && policy.usesDNS), now: now)
        let must = now >= unansweredUntil && oracle.isServed(certainly: true, needsPREF64: !isStatic, now: now)
        return (may, must)
    }
}
