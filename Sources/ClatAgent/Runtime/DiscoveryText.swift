import ClatBase
import ClatTranslator

/// Discovery in words.
extension PREF64Table.Source {
    /// For programs.
    var word: String {
        switch self {
        case .configuration: "configuration"
        case .router: "router"
        case .resolver: "resolver"
        }
    }

    /// For people.
    var text: String {
        switch self {
        case .configuration: "the configuration"
        case .router(let address): "router \(address)"
        case .resolver(let address): "resolver \(address)"
        }
    }
}

extension Choice {
    /// What changed, and why, as one line.
    static func change(from old: Choice?, to new: Choice?, _ cause: Cause) -> String {
        guard let new else {
            return "no PREF64 any more: \(old.map { "\($0.source.text) tells \($0.prefix) no longer" } ?? "")"
        }
        // RFC 6052 section 2.2; a /96 works all the same.
        let octet = new.prefix.prefix.address.low >> 56 == 0 ? "" : " (whose bits 64 to 71 should be zero)"
        let told = "PREF64 \(new.prefix)\(octet) from \(new.source.text)"
        guard let old else { return told }
        let why =
            switch cause {
            case .gone: "as \(old.source.text) tells \(old.prefix) no longer"
            case .unrouted: "as \(old.source.text) is no default router"
            case .dead: "as nothing comes back through \(old.prefix)"
            case .better: "which goes before \(old.source.text)"
            }
        return "\(told), \(why)"
    }
}

extension DNSOutcome {
    /// What the resolver says, as part of a sentence.
    var sentence: String {
        switch self {
        case .prefixes(let prefixes, let lifetime):
            "\(prefixes.map(\.description).joined(separator: ", ")), for \(StatusText.duration(lifetime))"
        case .none(.noSuchName, _): "says that ipv4only.arpa does not exist"
        case .none(.noAddress, _): "is no DNS64"
        case .none(.unrelated, _): "answers with addresses that hold no NAT64 prefix"
        case .failed(.noAnswer): "does not answer"
        case .failed(.unreachable): "cannot be reached"
        case .failed(.error(let code)): "answers with error \(code)\(Self.names[code].map { " (\($0))" } ?? "")"
        case .failed(.malformed(let problem)): "answers what cannot be read (\(problem.rawValue))"
        case .failed(.client(let text)): "cannot be asked: \(text)"
        }
    }

    /// RFC 1035 section 4.1.1.
    private static let names = [1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED"]
}

extension ResolverStatus {
    init(_ resolver: DNSDiscovery.Resolver) {
        var prefixes: [String] = []
        if case .prefixes(let told, _) = resolver.outcome { prefixes = told.map(\.description) }
        self.init(
            address: resolver.address.description, source: resolver.source, prefixes: prefixes,
            says: resolver.outcome?.sentence)
    }
}

extension PREF64Table {
    /// Why that entry is the one to use, as part of a sentence.
    func why(_ chosen: Entry) -> String {
        let others = entries.filter { $0 != chosen }
        let peers = others.filter { $0.source.rank == chosen.source.rank }
        if others.isEmpty { return "as nothing else is told" }
        if peers.isEmpty { return "which goes before \(others.map(\.source.text).joined(separator: " and "))" }
        if isRouted(chosen), peers.contains(where: { !isRouted($0) }) { return "which leads there" }
        if peers.contains(where: { $0.preference < chosen.preference }) { return "which has the highest preference" }
        return "which was heard first"
    }
}

extension UplinkMachine {
    /// Why it is as it is, as a sentence without its end.
    var sentence: String {
        guard case .running(let prefix) = reason, path.isDead else { return reason.sentence }
        return "IPv4 is set up through the NAT64 at \(prefix), but does not work; find out why with: clat-agent doctor"
    }
}

extension PathWatch {
    /// What is known of the path, as a sentence without its end; nil where that is nothing.
    var sentence: String? {
        let seen: String? =
            switch traffic {
            case .unknown: nil
            case .answered: "answers come back"
            case .unanswered(let packets): "nothing has come back for the last \(packets) packets of TCP and UDP"
            }
        let asked: String? =
            switch echo {
            case nil: nil
            case .reply(let milliseconds): "the check address answers after \(milliseconds) ms"
            case .silence: "the check address does not answer"
            case .refused(let why): "the check address cannot be reached: \(why)"
            }
        let known = [asked, seen].compactMap { $0 }
        return known.isEmpty ? nil : known.joined(separator: "; ")
    }
}
