/// One link of the chain, as `clat-agent doctor` found it.
public struct Finding: Codable, Sendable, Equatable {
    /// How it is.
    public enum Verdict: String, Codable, Sendable {
        /// As it should be.
        case good
        /// Worth knowing; IPv4 may work nevertheless.
        case notice
        /// IPv4 cannot work, or not as it should, because of this.
        case broken
    }

    /// How it is.
    public var verdict: Verdict
    /// A word for programs: which link.
    public var link: String
    /// What was seen.
    public var evidence: String
    /// What to do about it, where something is to be done.
    public var remedy: String?

    static func good(_ link: String, _ evidence: String) -> Finding {
        Finding(verdict: .good, link: link, evidence: evidence)
    }

    static func notice(_ link: String, _ evidence: String, remedy: String? = nil) -> Finding {
        Finding(verdict: .notice, link: link, evidence: evidence, remedy: remedy)
    }

    static func broken(_ link: String, _ evidence: String, remedy: String) -> Finding {
        Finding(verdict: .broken, link: link, evidence: evidence, remedy: remedy)
    }

    /// As people read it, 80 columns wide.
    public var lines: [String] {
        let mark =
            switch verdict {
            case .good: "  ok    "
            case .notice: "  note  "
            case .broken: "BROKEN  "
            }
        return StatusText.wrapped("\(mark)\(link): \(evidence)", indent: 8)
            + (remedy.map { StatusText.wrapped("        -> \($0)", indent: 11) } ?? [])
    }

    /// As one line of JSON with sorted keys.
    public var json: String { JSONLine.text(self) }
}
