import ClatBase
import ClatTranslator

/// Whether the path through the NAT64 works, by what real traffic shows, and by echo requests to an IPv4 address where the
/// operator named one. The well-known addresses of ipv4only.arpa are never asked (RFC 7050 section 3.1).
///
/// Pure: says when to look, takes in what was seen.
public struct PathWatch: Hashable, Sendable {
    /// What the counters of TCP and UDP show since the path is as it is.
    public enum Traffic: Hashable, Sendable {
        /// Too little went out to tell.
        case unknown
        /// Something has come back, and not only nothing since.
        case answered
        /// That many packets went out after the last that came in, if any did.
        case unanswered(packets: UInt64)
    }

    /// What came of an echo request.
    public enum Echo: Hashable, Sendable {
        /// It was answered.
        case reply(milliseconds: Int)
        /// Nothing came back.
        case silence
        /// An ICMP error came back, or it could not be sent.
        case refused(String)
    }

    /// See ``Traffic``.
    public private(set) var traffic = Traffic.unknown
    /// Of the last echo request; nil where there was none.
    public private(set) var echo: Echo?
    /// Whether TCP or UDP has ever come in since the path is as it is.
    private(set) var hasAnswered = false
    private var prefix: PREF64?
    private var sampleDue: BootInstant?
    private var sampleInterval: Duration = .zero
    private var hasCounters = false
    private var outbound: UInt64 = 0
    private var inbound: UInt64 = 0
    private var lastOutbound: UInt64 = 0
    private var unansweredSince: BootInstant?
    private var echoDue: BootInstant?
    private var echoTries = 0
    private var told: Bool?

    /// The counters are read at once, as what to compare with, after this, and then after twice as long each time.
    static let initialInterval: Duration = .seconds(5)
    /// See ``initialInterval``.
    static let maximumInterval: Duration = .seconds(300)
    /// While packets go or come, after this.
    static let busyInterval: Duration = .seconds(15)
    /// Packets that go out unanswered before they count, and for how long.
    static let patience: (packets: UInt64, time: Duration) = (5, .seconds(10))
    /// When the echo requests go out, after the start (RFC 7050 section 3.1.1).
    static let echoPauses: [Duration] = [.seconds(1), .seconds(2)]
    /// Once all of these have failed one goes out after this, and then after twice as long each time.
    static let initialEchoPause: Duration = .seconds(60)
    /// See ``initialEchoPause``.
    static let maximumEchoPause: Duration = .seconds(600)

    /// Nothing to watch.
    public init() {}

    /// Takes in what carries IPv4 now, nil being nothing; another prefix is another path.
    mutating func follow(_ prefix: PREF64?, echoes: Bool, now: BootInstant) {
        if prefix != self.prefix {
            self = PathWatch()
            self.prefix = prefix
            guard prefix != nil else { return }
            sampleInterval = Self.initialInterval / 2
            sampleDue = now
            echoDue = now
        }
        if !echoes { echo = nil }
    }

    /// Sends echo requests anew.
    mutating func checkAgain(now: BootInstant) {
        guard prefix != nil else { return }
        echoTries = 0
        echoDue = now
    }

    /// Whether the counters are to be read; said once for each time.
    mutating func takeSample(now: BootInstant) -> Bool {
        guard let due = sampleDue, due <= now else { return false }
        sampleInterval = min(sampleInterval * 2, Self.maximumInterval)
        sampleDue = now + sampleInterval
        return true
    }

    /// Whether an echo request is to be sent; said once for each.
    mutating func takeEcho(now: BootInstant) -> Bool {
        guard let due = echoDue, due <= now else { return false }
        echoDue = nil
        return true
    }

    private mutating func look(within pause: Duration, now: BootInstant) {
        sampleInterval = min(sampleInterval, pause)
        sampleDue = now + sampleInterval
    }

    /// Takes in counters of TCP and UDP; true where they show that answers have ceased to come, said once. Those of an engine
    /// that was started anew begin from 0.
    mutating func absorb(outbound: UInt64, inbound: UInt64, now: BootInstant) -> Bool {
        var hasCeased = false
        if hasCounters, outbound != lastOutbound || inbound != self.inbound {
            look(within: Self.busyInterval, now: now)
        }
        if !hasCounters {
            (hasCounters, self.outbound) = (true, outbound)
        } else if inbound > self.inbound {
            (traffic, unansweredSince, hasAnswered) = (.answered, nil, true)
            self.outbound = outbound
        } else if outbound < self.outbound || inbound < self.inbound {
            self.outbound = outbound
        } else if outbound > self.outbound {
            let since = unansweredSince ?? now
            unansweredSince = since
            let packets = outbound - self.outbound
            if packets >= Self.patience.packets, now - since >= Self.patience.time {
                if case .unanswered = traffic {} else { hasCeased = true }
                traffic = .unanswered(packets: packets)
            } else if packets >= Self.patience.packets {
                look(within: Self.patience.time, now: now)
            }
        }
        (lastOutbound, self.inbound) = (outbound, inbound)
        return hasCeased
    }

    /// Takes in what came of an echo request through a prefix; true where all tries have failed, said once.
    mutating func absorb(_ outcome: Echo, through prefix: PREF64, now: BootInstant) -> Bool {
        guard prefix == self.prefix, echoDue == nil else { return false }
        echo = outcome
        if case .reply = outcome { return false }
        let further = echoTries - Self.echoPauses.count
        let pause = Self.initialEchoPause * (1 << min(max(further, 0), 10))
        echoDue = now + (further < 0 ? Self.echoPauses[echoTries] : min(pause, Self.maximumEchoPause))
        echoTries += 1
        return further == 0
    }

    /// Whether all that was seen speaks against the path: the check address is silent, or nothing comes back.
    var isDead: Bool {
        switch (echo, traffic) {
        case (.reply, _), (_, .answered): false
        case (_, .unanswered): true
        case (let echo, .unknown): echo != nil && echoTries > Self.echoPauses.count
        }
    }

    private var works: Bool? {
        if isDead { return false }
        switch (echo, traffic) {
        case (.reply, _), (_, .answered): return true
        default: return nil
        }
    }

    /// Whether the path has turned out to work, or not to; said once for each.
    mutating func takeVerdict() -> Bool {
        guard let works, works != told else { return false }
        told = works
        return true
    }

    /// When there is next something to do; `echoes` is whether anybody is to be asked.
    func nextDeadline(echoes: Bool) -> BootInstant? {
        [sampleDue, echoes ? echoDue : nil].compactMap { $0 }.min()
    }
}
