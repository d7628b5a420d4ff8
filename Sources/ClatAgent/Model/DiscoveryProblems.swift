/// Something that was not used, counted by a code that explains itself.
public protocol CountedProblem: Error, Sendable, RawRepresentable<String> {
    /// What is wrong, and what to do, for people.
    var sentence: String { get }
}

extension CountedProblem {
    /// Counts by code in words: `mtu 1: An MTU option ...`. Another version's code is told without a sentence.
    static func words(of counts: [String: Int]) -> [String] {
        counts.filter { $0.value > 0 }.sorted { $0.key < $1.key }.map { code, count in
            "\(code) \(count)" + (Self(rawValue: code).map { ": \($0.sentence)" } ?? "")
        }
    }
}

/// Why a Router Advertisement, or one option of it, was not used.
public enum RouterAdvertisementProblem: String, CountedProblem, Hashable, CaseIterable {
    /// Not from a link-local address (RFC 4861 section 6.1.2).
    case sourceNotLinkLocal = "source-not-link-local"
    /// Hop limit not 255: it came through a router (RFC 4861 section 6.1.2).
    case hopLimit = "hop-limit-not-255"
    /// Not type 134, or code not 0.
    case notAnAdvertisement = "not-an-advertisement"
    /// Under 16 octets, or an option that ends past the message.
    case truncated
    /// An option of length 0, which would never end.
    case emptyOption = "option-length-zero"
    /// The host's own: it is a router on that link.
    case own = "own-advertisement"
    /// More octets or options than a link can carry with reason.
    case tooLarge = "too-large"
    /// More advertisements on the link than there is a reason for (`RouterAdvertisement.perSecond`); it was not looked at.
    case tooMany = "too-many"
    /// A router, prefix, route, PREF64 or resolver beyond those that are kept of a link.
    case noRoom = "no-room"
    /// A PREF64 option whose length is not 2 (in units of 8 octets).
    case pref64Length = "pref64-length"
    /// A PREF64 option with prefix length code 6 or 7.
    case pref64PrefixLengthCode = "pref64-prefix-length-code"
    /// A PREF64 that cannot be one: unspecified, loopback, IPv4-mapped, link-local or multicast.
    case pref64Prefix = "pref64-illegal-prefix"
    /// A Prefix Information option of a wrong length, with a prefix past 128 bits, a link-local prefix, or preferred
    /// longer than valid.
    case prefixInformation = "prefix-information"
    /// A Route Information option of a wrong length, with more prefix than it holds, or of the reserved preference.
    case routeInformation = "route-information"
    /// An RDNSS option of a wrong length.
    case rdnss
    /// An MTU option of a wrong length or under 1280.
    case mtu

    /// See ``CountedProblem/sentence``.
    public var sentence: String {
        switch self {
        case .sourceNotLinkLocal: "The source is not link-local: no router sends that; see by a capture who does."
        case .hopLimit:
            "The hop limit is not 255: it came from beyond a router, or is forged; see by a capture who sends it."
        case .notAnAdvertisement:
            "The code is not 0: the router's software is wrong; see by a capture which router it is."
        case .truncated: "It ends in the middle of an option or of its header: update the software of the router."
        case .emptyOption: "An option has length 0: update the software of the router."
        case .own: "This host sends them itself, as the router of that link: nothing is wrong."
        case .tooLarge: "It has more octets or options than are read: let the router announce less."
        case .tooMany: "More came in a second than are looked at: see by a capture who floods the link."
        case .noRoom:
            "It tells more routers, prefixes, routes or resolvers than are kept of a link: see by a capture who floods it."
        case .pref64Length: "A PREF64 option has not length 2: update the software of the router."
        case .pref64PrefixLengthCode:
            "A PREF64 option has prefix length code 6 or 7: update the software of the router."
        case .pref64Prefix: "A PREF64 cannot be one, as link-local or ::/96: correct it on the router."
        case .prefixInformation:
            "A prefix is link-local, or its length or lifetimes cannot be: correct it on the router."
        case .routeInformation: "A route has a length or preference that cannot be: update the software of the router."
        case .rdnss: "An RDNSS option has a length that cannot be: update the software of the router."
        case .mtu: "An MTU option has a wrong length, or is under 1280: correct it on the router."
        }
    }
}

/// Why a DNS message was not used.
public enum DNSProblem: String, CountedProblem, Hashable, CaseIterable {
    /// It ends in the middle.
    case truncated
    /// A query, or of another operation than QUERY.
    case notAnAnswer = "not-an-answer"
    /// To a question that was not asked.
    case otherQuestion = "other-question"
    /// A name with a label type that is none, or without an end.
    case name = "malformed-name"
    /// An AAAA or SOA record that is too short or too long.
    case record = "malformed-record"
    /// Any of these, where c-ares does not say which.
    case unreadable

    /// See ``CountedProblem/sentence``.
    public var sentence: String {
        switch self {
        case .truncated: "The answer ends in the middle: see whether a firewall or middlebox cuts DNS messages."
        case .notAnAnswer: "The message is not an answer: see by a capture what the resolver sends."
        case .otherQuestion: "The answer is to another question: the resolver is wrong, or somebody forges answers."
        case .name: "A name in the answer cannot be read: update the resolver's software."
        case .record: "A record of the answer has a wrong length: update the resolver's software."
        case .unreadable: "The answer cannot be read: see by a capture what the resolver sends."
        }
    }
}
