public import ClatBase
public import ClatTranslator

/// Every PREF64 that routers of one link have told, and which of them to use.
///
/// An entry belongs to the router that sent it: a lifetime of zero withdraws only that router's entry, an
/// advertisement without the option withdraws nothing (RFC 8781 section 4.1), and expiry counts through sleep.
public struct PREF64Table: Hashable, Sendable {
    /// One router's word.
    public struct Entry: Hashable, Sendable {
        /// Who sent it.
        public var router: IPv6Address
        /// What it sent.
        public var prefix: PREF64
        /// That router's preference (RFC 4191).
        public var preference: RouterAdvertisement.Preference
        /// When it ends.
        public var expires: BootInstant
        /// When it was last heard.
        public var heard: BootInstant
        /// The lifetime it was last given, seconds.
        public var lifetime: Int
    }

    /// In the order first heard (RFC 7050 section 3).
    public private(set) var entries: [Entry] = []
    /// Entries refused because the table was full.
    public private(set) var refused = 0

    /// More than a sane link has, few enough for a flood to cost nothing.
    public static let capacity = 32

    /// An empty table.
    public init() {}

    /// Takes in what an advertisement says.
    public mutating func hear(_ advertisement: RouterAdvertisement, now: BootInstant) {
        for index in entries.indices where entries[index].router == advertisement.router {
            entries[index].preference = advertisement.preference
        }
        for option in advertisement.pref64s {
            let known = entries.firstIndex { $0.router == advertisement.router && $0.prefix == option.prefix }
            guard option.lifetime > 0 else {
                if let known { entries.remove(at: known) }
                continue
            }
            let expires = now + .seconds(option.lifetime)
            if let known {
                entries[known].expires = expires
                entries[known].heard = now
                entries[known].lifetime = option.lifetime
            } else if entries.count < Self.capacity {
                entries.append(
                    Entry(
                        router: advertisement.router, prefix: option.prefix, preference: advertisement.preference,
                        expires: expires, heard: now, lifetime: option.lifetime))
            } else {
                refused += 1
            }
        }
    }

    /// Drops what has run out.
    public mutating func expire(now: BootInstant) {
        entries.removeAll { $0.expires <= now }
    }

    /// Forgets everything: the link is another one.
    public mutating func clear() {
        entries = []
    }

    /// When the next entry runs out.
    public var nextExpiry: BootInstant? {
        entries.map(\.expires).min()
    }

    /// The entry to use: the current prefix while anybody still tells it, otherwise the best router's, otherwise the
    /// first heard.
    public func choose(current: PREF64?) -> Entry? {
        let candidates = entries.filter { $0.prefix == current }
        return (candidates.isEmpty ? entries : candidates).reduce(nil) { best, entry in
            guard let best, best.preference >= entry.preference else { return entry }
            return best
        }
    }
}
