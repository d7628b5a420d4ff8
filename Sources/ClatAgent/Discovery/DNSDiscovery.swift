public import ClatBase
public import ClatTranslator

/// One question for ipv4only.arpa; told from an earlier one to the same resolver by when it was asked.
public struct DNSQuestion: Hashable, Sendable {
    /// The resolver.
    public var server: IPv6Address
    /// When it was asked.
    public var asked: BootInstant
}

/// What came of a question.
public enum DNSOutcome: Hashable, Sendable {
    /// NAT64 prefixes, good for that many seconds.
    case prefixes([PREF64], lifetime: Int)
    /// The resolver knows none, which holds for that many seconds where it says so.
    case none(Absence, lifetime: Int?)
    /// No answer, or none that is of use.
    case failed(Failure)

    /// Why there is none.
    public enum Failure: Hashable, Sendable {
        /// Nothing came in time.
        case noAnswer
        /// Nothing could be sent, or nobody listens.
        case unreachable
        /// A response code that is an error (RFC 1035 section 4.1.1): 2 for the server's failure, 5 for a refusal.
        case error(Int)
        /// Something came that cannot be read.
        case malformed(DNSProblem)
        /// The client could not work.
        case client(String)
    }

    /// How a resolver says that it is no DNS64.
    public enum Absence: String, Hashable, Sendable {
        /// NXDOMAIN.
        case noSuchName = "no-such-name"
        /// No AAAA record: it is no DNS64.
        case noAddress = "no-address"
        /// AAAA records that hold neither well-known address: a captive portal, or a liar.
        case unrelated = "unrelated-addresses"
    }

    /// What an answer means.
    public init(_ answer: DNSAnswer) {
        let prefixes = PREF64.discovered(in: answer.addresses)
        switch (answer.code, prefixes.isEmpty) {
        case (0, false):
            self = .prefixes(Array(prefixes.prefix(PREF64Table.resolverLimit)), lifetime: answer.lifetime ?? 0)
        case (0, true):
            self =
                answer.addresses.isEmpty
                ? .none(.noAddress, lifetime: answer.negativeLifetime) : .none(.unrelated, lifetime: answer.lifetime)
        case (3, _): self = .none(.noSuchName, lifetime: answer.negativeLifetime)
        default: self = .failed(.error(answer.code))
        }
    }
}

/// Whom to ask for ipv4only.arpa on one link, and when (RFC 7050). Pure: questions come out, outcomes go in.
///
/// Every resolver has a schedule of its own, so that neither a dead one nor a liar keeps the others from telling.
public struct DNSDiscovery: Hashable, Sendable {
    /// One resolver of the link.
    public struct Resolver: Hashable, Sendable {
        /// Its address.
        public let address: IPv6Address
        /// Where it was learnt.
        public internal(set) var source: ResolverSource
        /// What came of the last question; nil before the first.
        public internal(set) var outcome: DNSOutcome?
        /// When it is asked next, unless a question is open.
        public fileprivate(set) var due: BootInstant
        /// When the open question was asked.
        fileprivate var asked: BootInstant?
        /// Questions in a row that failed.
        fileprivate var failures = 0
        /// When the prefixes it told last run out; nil where it told none.
        fileprivate var end: BootInstant?
    }

    /// What all resolvers together say.
    public enum Verdict: Hashable, Sendable {
        /// None is known, or some have not been heard yet.
        case open
        /// At least one answered, and none knows a NAT64.
        case absent
        /// None answers.
        case silent
    }

    /// In the order of ``ResolverSource``.
    public private(set) var resolvers: [Resolver] = []
    /// Whether anybody needs an answer.
    public private(set) var isWanted = false
    private var searchDue = BootInstant(nanoseconds: 0)
    private var searches = 0

    /// Resolvers that are asked; resolv.conf(5) has three.
    static let capacity = 4
    /// A prefix is asked for again that long before it runs out (RFC 7050 section 3).
    static let refreshMargin: Duration = .seconds(10)
    /// A smaller TTL counts as this one: questions are a minute apart at least.
    static let minimumLifetime: Duration = .seconds(70)
    /// A prefix is kept that long beyond its end where the resolver has ceased to answer.
    static let grace: Duration = .seconds(60)
    /// Where a resolver does not say how long its no holds.
    static let usualNegativeLifetime = 300
    /// Bounds of that, seconds (RFC 2308 section 5 advises the upper one).
    static let negativeLifetimes = 60...10800
    /// After a failure: this, then twice as long each time.
    static let initialPause: Duration = .seconds(2)
    /// See ``initialPause``.
    static let maximumPause: Duration = .seconds(300)
    /// More than the client takes to give up, so that a lost outcome cannot end the asking.
    static let openLimit: Duration = .seconds(30)

    /// Nobody to ask.
    public init() {}

    /// What is known of the question as a whole.
    public var verdict: Verdict {
        let outcomes = resolvers.compactMap(\.outcome)
        if resolvers.isEmpty || outcomes.count < resolvers.count { return .open }
        let isSilent = outcomes.allSatisfy { if case .failed = $0 { true } else { false } }
        return isSilent ? .silent : .absent
    }

    /// Whether any resolver has an open question, or is to be asked now.
    func isPending(now: BootInstant) -> Bool {
        resolvers.contains { $0.asked != nil || $0.due <= now }
    }

    /// Takes in who the resolvers are; one that is new is asked at once.
    mutating func use(_ servers: [(address: IPv6Address, source: ResolverSource)], now: BootInstant) {
        var used: [Resolver] = []
        for server in servers where used.count < Self.capacity {
            guard !used.contains(where: { $0.address == server.address }) else { continue }
            var resolver =
                resolvers.first { $0.address == server.address }
                ?? Resolver(address: server.address, source: server.source, due: now)
            resolver.source = server.source
            used.append(resolver)
        }
        resolvers = used
    }

    /// Makes every resolver due at once: the host was asleep, has a new address, or somebody wants it.
    mutating func askAgain(now: BootInstant) {
        for index in resolvers.indices {
            resolvers[index].due = now
            resolvers[index].asked = nil
            resolvers[index].failures = 0
        }
        searchDue = now
        searches = 0
    }

    /// The questions to be asked now, each said once.
    mutating func questions(isWanted: Bool, now: BootInstant) -> [DNSQuestion] {
        self.isWanted = isWanted
        guard isWanted else { return [] }
        var questions: [DNSQuestion] = []
        for index in resolvers.indices
        where (resolvers[index].asked.map { $0 + Self.openLimit } ?? resolvers[index].due) <= now {
            resolvers[index].asked = now
            questions.append(DNSQuestion(server: resolvers[index].address, asked: now))
        }
        return questions
    }

    /// Whether the system's files are to be looked through for resolvers: after 1 s, 2 s, 4 s ... 64 s, and where routers
    /// or hooks tell some up to an hour. Said once for each time.
    mutating func takeSearch(now: BootInstant) -> Bool {
        guard isWanted, searchDue <= now else { return false }
        let isToldBetter = resolvers.contains { $0.source == .routerAdvertisement || $0.source == .told }
        searchDue = now + .seconds(1 << min(searches, isToldBetter ? 12 : 6))
        searches += 1
        return true
    }

    /// Takes in what came of a question; false where it is no longer open. `jitter` is -0.1 to 0.1.
    mutating func take(_ outcome: DNSOutcome, of question: DNSQuestion, jitter: Double, now: BootInstant) -> Bool {
        guard let index = resolvers.firstIndex(where: { $0.address == question.server && $0.asked == question.asked })
        else { return false }
        resolvers[index].asked = nil
        resolvers[index].outcome = outcome
        if case .failed = outcome {} else { resolvers[index].failures = 0 }
        switch outcome {
        case .prefixes(_, let lifetime):
            resolvers[index].end = now + Self.lifetime(lifetime)
            resolvers[index].due = now + (Self.lifetime(lifetime) - Self.refreshMargin)
        case .none(_, let lifetime):
            resolvers[index].end = nil
            let bounds = Self.negativeLifetimes
            let seconds = min(max(lifetime ?? Self.usualNegativeLifetime, bounds.lowerBound), bounds.upperBound)
            resolvers[index].due = now + .seconds(seconds)
        case .failed:
            let pause = min(Self.initialPause * (1 << min(resolvers[index].failures, 10)), Self.maximumPause)
            resolvers[index].due = now + pause * (1 + jitter)
            resolvers[index].failures += 1
        }
        return true
    }

    /// For how long a prefix of that TTL is used.
    static func lifetime(_ seconds: Int) -> Duration { max(.seconds(seconds), minimumLifetime) }

    /// Until when the prefixes of a resolver that has just failed are kept, however often it fails; nil where it told none.
    func graceEnd(of server: IPv6Address, now: BootInstant) -> BootInstant? {
        resolvers.first { $0.address == server }?.end.map { min($0, now) + Self.grace }
    }

    /// When ``questions(isWanted:now:)`` or ``takeSearch(now:)`` next has something to say.
    var nextDeadline: BootInstant? {
        guard isWanted else { return nil }
        let moments = resolvers.map { $0.asked.map { $0 + Self.openLimit } ?? $0.due }
        return (moments + [searchDue]).min()
    }
}
