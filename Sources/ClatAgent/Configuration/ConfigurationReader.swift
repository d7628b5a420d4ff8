import ClatBase
import ClatTranslator

/// Makes a ``Configuration`` of a TOML file, and a sentence of everything that cannot be used.
struct ConfigurationReader {
    /// What is wrong, and where.
    struct Problem: Hashable {
        var line: Int
        var text: String
    }

    private(set) var configuration = Configuration()
    private(set) var problems: [Problem] = []

    private typealias Value = TOMLDocument.Value

    init(_ document: TOMLDocument) {
        let sections = document.sections.filter { $0.name == ConfigurationKey.interface.rawValue && $0.isRepeated }
        for section in document.sections where !sections.contains(section) {
            if section.name == ConfigurationKey.interface.rawValue {
                refuse(.interface, section.line, "[interface] is not allowed here")
            } else {
                refuseUnknown(section.name, section.line, inSection: false)
            }
        }
        configuration.defaults = read(document.entries, over: LinkPolicy(), section: nil)
        configuration.sections = sections.map { _ in .init(pattern: "", policy: configuration.defaults) }
        for (index, section) in sections.enumerated() {
            configuration.sections[index].policy = read(
                section.entries, over: configuration.defaults, section: index)
            if !section.entries.contains(where: { $0.key == ConfigurationKey.name.rawValue }) {
                refuse(.name, section.line, "is missing")
            }
        }
    }

    /// Reads the keys of one place.
    private mutating func read(
        _ entries: [TOMLDocument.Entry], over defaults: LinkPolicy, section: Int?
    ) -> LinkPolicy {
        var policy = defaults
        let allowed = ConfigurationKey.keys(inSection: section != nil)
        for entry in entries {
            guard let key = allowed.first(where: { $0.rawValue == entry.key }) else {
                refuseUnknown(entry.key, entry.line, inSection: section != nil)
                continue
            }
            if !read(key, entry.value, into: &policy, section: section) {
                refuse(key, entry.line, "\(entry.value) is not allowed here")
            }
        }
        return policy
    }

    /// Whether the value could be used.
    private mutating func read(
        _ key: ConfigurationKey, _ value: Value, into policy: inout LinkPolicy, section: Int?
    ) -> Bool {
        switch (key, value) {
        case (.interfaces, _): Self.set(&configuration.interfaces, Self.names(value))
        case (.exclude, _): Self.set(&configuration.excluded, Self.names(value))
        case (.logLevel, .string(let word)): Self.set(&configuration.logLevel, LogLevel(rawValue: word))
        case (.optimisticDAD, .boolean(let truth)): Self.set(&configuration.optimisticDAD, truth)
        case (.datapath, .string(let word)): Self.set(&configuration.datapath, Datapath(rawValue: word))
        case (.name, _):
            section.map { Self.set(&configuration.sections[$0].pattern, Self.name(value)) } ?? false
        case (.nativeIPv4, .string(let word)): Self.set(&policy.nativeIPv4, .init(rawValue: word))
        case (.pref64, .string(let text)): Self.fill(&policy.pref64, PREF64(text))
        case (.dns, .boolean(let truth)): Self.set(&policy.usesDNS, truth)
        case (.checkAddress, .string(let text)):
            Self.fill(&policy.checkAddress, IPv4Address(text).flatMap { $0.isCheckable ? $0 : nil })
        case (.ipv4Address, .string("auto")): Self.set(&policy.ipv4Address, .some(nil))
        case (.ipv4Address, .string(let text)):
            Self.fill(&policy.ipv4Address, IPv4Address(text).flatMap { $0.isHost ? $0 : nil })
        case (.ipv6Address, .string(let text)): Self.set(&policy.ipv6Address, LinkPolicy.IPv6Source(text))
        case (.mtu, .integer(let number)): Self.fill(&policy.mtu, (1280...65535).contains(number) ? number : nil)
        case (.metric, .integer(let number)):
            Self.fill(&policy.metric, (0...Int(UInt32.max)).contains(number) ? number : nil)
        case (.ttl, .string(let word)): Self.set(&policy.ttl, .init(rawValue: word))
        case (.strictHopLimit, .boolean(let truth)): Self.set(&policy.strictHopLimit, truth)
        case (.trafficClass, .string(let word)): Self.set(&policy.trafficClass, .init(rawValue: word))
        case (.lowestIPv6MTU, .integer(let number)):
            Self.fill(&policy.lowestIPv6MTU, (1280...65535).contains(number) ? number : nil)
        case (.strictWellKnownPrefix, .boolean(let truth)): Self.set(&policy.strictWellKnownPrefix, truth)
        case (.nodeIdentification, .boolean(let truth)): Self.set(&policy.nodeIdentification, truth)
        case (.answerUntranslatable, .boolean(let truth)): Self.set(&policy.answerUntranslatable, truth)
        case (.errorsPerSecond, .integer(let number)): Self.set(&policy.errorsPerSecond, UInt32(exactly: number))
        default: false
        }
    }

    private static func set<Field>(_ field: inout Field, _ value: Field?) -> Bool {
        guard let value else { return false }
        field = value
        return true
    }

    /// The same for a field that may be nil, which no value is.
    private static func fill<Field>(_ field: inout Field?, _ value: Field?) -> Bool {
        field = value ?? field
        return value != nil
    }

    private mutating func refuse(_ key: ConfigurationKey, _ line: Int, _ text: String) {
        problems.append(Problem(line: line, text: "\(key.rawValue): \(text); allowed: \(key.allowed)"))
    }

    private mutating func refuseUnknown(_ key: String, _ line: Int, inSection: Bool) {
        let advice =
            if let other = ConfigurationKey(rawValue: key) {
                other.place == .top ? "it belongs before the first [[interface]]" : "it belongs in an [[interface]]"
            } else if let likely = ConfigurationKey.likely(key, inSection: inSection) {
                "is it \(likely.rawValue)?"
            } else {
                "allowed here: \(ConfigurationKey.keys(inSection: inSection).map(\.rawValue).joined(separator: ", "))"
            }
        problems.append(Problem(line: line, text: "\(key): there is no such key here; \(advice)"))
    }

    private static func names(_ value: Value) -> [String]? {
        guard case .list(let values) = value else { return nil }
        let names = values.compactMap(name)
        return names.count == values.count ? names : nil
    }

    /// A name as the kernel takes it (no slash, no space, at most 15 octets), or a pattern.
    private static func name(_ value: Value) -> String? {
        guard case .string(let name) = value, !name.isEmpty,
            !name.contains(where: { $0 == "/" || $0.isWhitespace || $0 == "\0" }),
            name.utf8.count <= 15 || Glob.isPattern(name)
        else { return nil }
        return name
    }
}

extension LinkPolicy.IPv6Source {
    fileprivate init?(_ text: String) {
        switch text {
        case "stable": self = .stable
        case "random": self = .random
        default:
            guard let address = IPv6Address(text), !address.isMulticast, !address.isLinkLocal, !address.isLoopback,
                address != .unspecified
            else { return nil }
            self = .fixed(address)
        }
    }
}
