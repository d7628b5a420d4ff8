public import ClatBase
public import ClatTranslator

/// Every PREF64 that is known of one link, who told it, and which of them to use.
///
/// An entry belongs to whom told it: a lifetime of zero withdraws only that router's entry, an advertisement without the
/// option withdraws nothing (RFC 8781 section 4.1), a resolver's answer replaces that resolver's earlier one, and expiry
/// counts through sleep.
public struct PREF64Table: Hashable, Sendable, Codable {
    /// Who told a PREF64.
    public enum Source: Hashable, Sendable, Codable {
        /// The operator.
        case configuration
        /// A router, by its link-local address (RFC 8781).
        case router(IPv6Address)
        /// A resolver, by its address (RFC 7050).
        case resolver(IPv6Address)

        /// Higher goes first (RFC 8781 section 5.3: routers before DNS).
        var rank: Int {
            switch self {
            case .configuration: 2
            case .router: 1
            case .resolver: 0
            }
        }

        /// Prefixes of it that are kept: an advertisement may hold hundreds, an answer thousands.
        var limit: Int {
            switch self {
            case .configuration: 1
            case .router: 8
            case .resolver: PREF64Table.resolverLimit
            }
        }
    }

    /// One word of one source.
    public struct Entry: Hashable, Sendable, Codable {
        /// Who told it.
        public var source: Source
        /// What it told.
        public var prefix: PREF64
        /// That router's preference (RFC 4191); medium for any other source.
        public var preference: RouterAdvertisement.Preference
        /// When it ends; nil is never.
        public var expires: BootInstant?
        /// When it was last heard.
        public var heard: BootInstant

        /// The resolver that told it, if one did.
        public var resolver: IPv6Address? {
            if case .resolver(let address) = source { address } else { nil }
        }

        /// The router that told it, if one did.
        public var router: IPv6Address? {
            if case .router(let address) = source { address } else { nil }
        }
    }

    /// In the order first heard (RFC 7050 section 3).
    public private(set) var entries: [Entry] = []
    /// Prefixes through which nothing came back, and until when they are passed over.
    private var suspects: [PREF64: BootInstant] = [:]
    /// What is used, while there is any: the words of routers that lead there.
    private var routed: Set<Word> = []
    /// Entries refused because the table was full.
    public private(set) var refused = 0

    /// More than a sane link has, few enough for a flood to cost nothing.
    public static let capacity = 32
    /// See ``Source/limit``.
    static let resolverLimit = 4

    /// What outlives the process.
    private enum CodingKeys: String, CodingKey {
        case entries, suspects, refused
    }

    /// An empty table.
    public init() {}

    /// Takes in what the operator wants; nil is nothing in particular.
    mutating func configure(_ prefix: PREF64?) {
        let present = entries.first { $0.source == .configuration }
        guard present?.prefix != prefix else { return }
        entries.removeAll { $0.source == .configuration }
        guard let prefix else { return }
        let ever = BootInstant(nanoseconds: 0)
        put(Entry(source: .configuration, prefix: prefix, preference: .medium, expires: nil, heard: ever))
    }

    /// Takes in what an advertisement says.
    public mutating func hear(_ advertisement: RouterAdvertisement, now: BootInstant) {
        let source = Source.router(advertisement.router)
        for index in entries.indices where entries[index].source == source {
            entries[index].preference = advertisement.preference
        }
        for option in advertisement.pref64s {
            guard option.lifetime > 0 else {
                entries.removeAll { $0.source == source && $0.prefix == option.prefix }
                continue
            }
            put(
                Entry(
                    source: source, prefix: option.prefix, preference: advertisement.preference,
                    expires: now + .seconds(option.lifetime), heard: now))
        }
    }

    /// Takes in what a resolver answered; `prefixes` empty withdraws what it told before.
    mutating func hear(
        _ prefixes: [PREF64], fromResolver address: IPv6Address, until end: BootInstant, now: BootInstant
    ) {
        let source = Source.resolver(address)
        entries.removeAll { $0.source == source && !prefixes.contains($0.prefix) }
        for prefix in prefixes {
            put(Entry(source: source, prefix: prefix, preference: .medium, expires: end, heard: now))
        }
    }

    /// Drops what resolvers told.
    mutating func forgetResolvers() { entries.removeAll { $0.resolver != nil } }

    /// Keeps what a resolver told until `end`, where it would run out before.
    mutating func extend(resolver address: IPv6Address, to end: BootInstant) {
        for index in entries.indices where entries[index].source == .resolver(address) {
            entries[index].expires = entries[index].expires.map { max($0, end) }
        }
    }

    /// Where there is no room it takes the place of the last of the worst kind of source, if its own kind is better.
    private mutating func put(_ entry: Entry) {
        if let known = entries.firstIndex(where: { $0.source == entry.source && $0.prefix == entry.prefix }) {
            entries[known] = entry
            return
        }
        let lowest = entries.map(\.source.rank).min() ?? 0
        let hasRoom = entries.count < Self.capacity
        guard entries.count(where: { $0.source == entry.source }) < entry.source.limit,
            hasRoom || lowest < entry.source.rank
        else {
            refused += 1
            return
        }
        if !hasRoom, let worst = entries.lastIndex(where: { $0.source.rank == lowest }) {
            entries.remove(at: worst)
            refused += 1
        }
        entries.append(entry)
    }

    /// Drops what has run out.
    public mutating func expire(now: BootInstant) {
        entries.removeAll { entry in entry.expires.map { $0 <= now } ?? false }
        suspects = suspects.filter { $0.value > now }
    }

    /// Whether no more is in it than ever comes in.
    var isWithinCapacity: Bool { entries.count <= Self.capacity && suspects.count <= Self.capacity }

    /// Drops what does not hold on the network the host is on now, and all suspicion of before.
    mutating func forget(where isGone: (Entry) -> Bool) {
        entries.removeAll(where: isGone)
        suspects = [:]
    }

    /// What an entry is known by.
    private struct Word: Hashable {
        var source: Source
        var prefix: PREF64

        init(_ entry: Entry) { (source, prefix) = (entry.source, entry.prefix) }
    }

    /// Takes in which routers lead to what they tell now.
    mutating func prefer(_ entries: [Entry]) { routed = Set(entries.map(Word.init)) }

    /// Whether no router told it, or one that leads there.
    func isRouted(_ entry: Entry) -> Bool { entry.router == nil || routed.contains(Word(entry)) }

    /// What else is told, each once, in the order first heard.
    func others(than prefix: PREF64) -> [PREF64] {
        entries.map(\.prefix).reduce(into: []) { others, told in
            if told != prefix, !others.contains(told) { others.append(told) }
        }
    }

    /// When the next entry runs out.
    public var nextExpiry: BootInstant? {
        entries.compactMap(\.expires).min()
    }

    /// Passes over a prefix for a while where another of the same kind of source is there. All suspicion ends together, so that
    /// several through which nothing comes back do not take turns.
    mutating func suspect(_ prefix: PREF64, until end: BootInstant) {
        suspects = suspects.mapValues { _ in end }
        suspects[prefix] = end
    }

    /// Whether it is passed over.
    func isSuspect(_ prefix: PREF64) -> Bool { suspects[prefix] != nil }

    /// The entry to use: of the best kind of source; there one that is not suspect, if there is one; there one of a default
    /// router, as another's NAT64 may take no packets that come through this one (RFC 9872 section 4.4); there the current
    /// prefix while anybody still tells it, otherwise the best router's, otherwise the first heard.
    public func choose(current: PREF64?) -> Entry? {
        let rank = entries.map(\.source.rank).max()
        var best = entries.filter { $0.source.rank == rank }
        let preferences: [(Entry) -> Bool] = [
            { suspects[$0.prefix] == nil }, { isRouted($0) }, { $0.prefix == current },
        ]
        for isPreferred in preferences {
            let preferred = best.filter(isPreferred)
            best = preferred.isEmpty ? best : preferred
        }
        return best.reduce(nil) { best, entry in
            guard let best, best.preference >= entry.preference else { return entry }
            return best
        }
    }
}
