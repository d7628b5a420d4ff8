/// A token bucket for ICMP errors (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)); holds one second's worth.
struct RateLimit {
    /// When the bucket was or will be empty, in nanoseconds; far enough in the past it is full.
    private var emptyAt: UInt64?

    /// Whether one more error may be made now.
    mutating func allows(_ perSecond: UInt32, now: UInt64) -> Bool {
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
