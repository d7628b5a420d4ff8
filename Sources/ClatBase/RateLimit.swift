/// A token bucket that holds one second's worth (for ICMP errors RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)).
public struct RateLimit: Hashable, Sendable {
    /// When the bucket was or will be empty, in nanoseconds; far enough in the past it is full.
    private var emptyAt: UInt64?

    /// A full one.
    public init() {}

    /// Whether one more may be let through now, a moment in nanoseconds of any clock.
    public mutating func allows(_ perSecond: UInt32, now: UInt64) -> Bool {
        guard perSecond > 0 else { return false }
        let second: UInt64 = 1_000_000_000
        let cost = second / UInt64(perSecond)
        let fullAt = now >= second ? now - second : 0
        let level = max(emptyAt ?? fullAt, fullAt)
        guard level <= now, now - level >= cost else { return false }
        emptyAt = level + cost
        return true
    }
}
