import ClatBase

/// What is to outlive this process, by name: descriptors of what stands, and the ``Handover`` that tells what they are.
struct DescriptorStore {
    /// Whether a name is that of a handover.
    static func isState(_ name: String) -> Bool { number(of: name) != nil }

    /// Handovers are numbered: a new one is kept before the old one goes.
    static func state(_ number: Int) -> String { "state-\(number)" }

    static func number(of name: String) -> Int? {
        name.hasPrefix("state-") ? Int(name.dropFirst(6)).flatMap { (0...1 << 53).contains($0) ? $0 : nil } : nil
    }

    /// Whether a name is that of a namespace.
    static func isNamespace(_ name: String) -> Bool { name.hasPrefix("netns-") }

    static func namespace(_ uplink: Int) -> String { "netns-\(uplink)" }
    static func tun(_ uplink: Int) -> String { "tun-\(uplink)" }
    static func uplinkGuard(_ uplink: Int) -> String { "guard-\(uplink)" }
    static func links(_ uplink: Int) -> [String] { ["uplink", "tun", "host"].map { "tcx-\($0)-\(uplink)" } }

    static func relay(_ uplink: Int) -> [String] { ["tap", "in", "out"].map { "relay-\($0)-\(uplink)" } }

    /// All of an uplink's, by name.
    static func names(_ descriptors: Instance.Descriptors, _ uplink: Int) -> [(name: String, descriptor: CInt)] {
        [(namespace(uplink), descriptors.namespace), (tun(uplink), descriptors.tun)]
            + Array(zip(links(uplink), descriptors.links)) + Array(zip(relay(uplink), descriptors.relay))
            + [descriptors.uplinkGuard].compactMap { $0 }.map { (uplinkGuard(uplink), $0) }
    }

    private let manager: ServiceManager
    /// The names that the manager holds.
    private var held: Set<String>
    private(set) var number: Int
    private var kept: Handover?
    private var keptAt = BootInstant(nanoseconds: 0)
    /// What was tried in vain, and until when it is not tried again.
    private var tried: (handover: Handover, notBefore: BootInstant)?
    /// Whether the manager has less than it should: what stands now would not survive the process, or not whole.
    var isBehind: Bool { tried != nil }

    /// Knowledge alone is not kept more often than this: a flood of advertisements is no flood for the manager.
    private static let pause: Duration = .seconds(1)
    /// After this what did not succeed is tried again.
    private static let retry: Duration = .seconds(10)

    /// Begins with what it held when the process began.
    init(_ manager: ServiceManager, holding names: [String]) {
        self.manager = manager
        held = Set(names)
        number = names.compactMap(Self.number).max() ?? 0
    }

    /// Keeps this and nothing else. What comes back is when to ask again, if something was put off; `isLast` puts off nothing.
    mutating func keep(
        _ handover: Handover, _ descriptors: (Int) -> Instance.Descriptors?, isLast: Bool = false, now: BootInstant
    ) -> BootInstant? {
        guard handover != kept else { return nil }
        if !isLast, let kept, kept.hasSameParts(as: handover), now < keptAt + Self.pause { return keptAt + Self.pause }
        if !isLast, let tried, now < tried.notBefore, tried.handover.hasSameParts(as: handover) {
            return tried.notBefore
        }
        var wanted: Set<String> = []
        // A manager that takes nothing costs a second, and is asked for nothing more.
        var isTaking = true
        for entry in handover.entries {
            guard let own = descriptors(entry.index) else { continue }
            for (name, descriptor) in Self.names(own, entry.index) {
                wanted.insert(name)
                guard isTaking, !held.contains(name) else { continue }
                isTaking = manager.keep(descriptor, as: name)
                if isTaking { held.insert(name) }
            }
        }
        if isTaking, !handover.entries.isEmpty {
            isTaking = tell(handover)
            wanted.insert(Self.state(number))
        }
        // An account that is not quite true any more is better than none.
        guard isTaking else {
            tried = (handover, now + Self.retry)
            return now + Self.retry
        }
        drop { !wanted.contains($0) }
        (kept, keptAt, tried) = (handover, now, nil)
        return nil
    }

    /// Has the manager keep a new account; false where that is not to be had.
    private mutating func tell(_ handover: Handover) -> Bool {
        guard let memory = try? SealedMemory.make(handover.encoded),
            manager.keep(memory.rawValue, as: Self.state(number + 1))
        else { return false }
        number += 1
        held.insert(Self.state(number))
        return true
    }

    /// Lets go of all that belongs to an uplink, before it is taken down.
    mutating func drop(uplink: Int) {
        let names = Set(
            [Self.namespace(uplink), Self.tun(uplink), Self.uplinkGuard(uplink)] + Self.links(uplink)
                + Self.relay(uplink))
        guard !held.isDisjoint(with: names) else { return }
        kept = nil
        drop { names.contains($0) }
    }

    private mutating func drop(_ isObsolete: (String) -> Bool) {
        for name in held.sorted() where isObsolete(name) && manager.drop(name) { held.remove(name) }
    }
}

extension Handover {
    /// Whether the same stands, whatever else is known by now.
    func hasSameParts(as other: Handover) -> Bool {
        func parts(_ entry: Entry) -> Entry {
            var entry = entry
            entry.knowledge = LinkKnowledge()
            return entry
        }
        return entries.map(parts) == other.entries.map(parts)
    }
}
