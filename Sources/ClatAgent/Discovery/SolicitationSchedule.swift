public import ClatBase

/// When to send the next Router Solicitation (RFC 7559): after 4 s, then each time about twice as long, up to an
/// hour, until an advertisement with a router lifetime arrives. The first goes out at once: the agent starts on a
/// link that has been up.
public struct SolicitationSchedule: Hashable, Sendable {
    /// When the next one is due; nil while no more are wanted.
    public private(set) var due: BootInstant?
    private var interval: Duration = .zero
    private var isUnderWay = false

    /// Initial retransmission time (RFC 7559 section 2).
    static let initialInterval: Duration = .seconds(4)
    /// Maximum retransmission time (RFC 7559 section 2).
    static let maximumInterval: Duration = .seconds(3600)

    /// Nothing to send yet.
    public init() {}

    /// Begins anew with a solicitation at once.
    public mutating func start(now: BootInstant) {
        interval = .zero
        isUnderWay = false
        due = now
    }

    /// Ends: an answer came, or the link went.
    public mutating func stop() {
        due = nil
        isUnderWay = false
    }

    /// Whether one is to be sent now; says so once, until ``sent(now:jitter:)`` or a new start.
    mutating func take(now: BootInstant) -> Bool {
        guard let due, due <= now else { return false }
        self.due = nil
        isUnderWay = true
        return true
    }

    /// One was sent; `jitter` is -0.1 to 0.1 (RFC 7559 section 2).
    public mutating func sent(now: BootInstant, jitter: Double) {
        guard isUnderWay else { return }
        isUnderWay = false
        let next = interval == .zero ? Self.initialInterval : interval * 2
        interval = min(next, Self.maximumInterval)
        due = now + interval * (1 + jitter)
    }
}
