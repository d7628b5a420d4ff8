public import ClatBase

/// The answer to a question for AAAA records of ipv4only.arpa (RFC 1035 section 4, RFC 3596), as far as discovery needs it.
public struct DNSAnswer: Hashable, Sendable {
    /// Response code: 0 no error, 3 no such name.
    public var code: Int
    /// The AAAA records of the answer section, in order.
    public var addresses: [IPv6Address] = []
    /// The smallest TTL in the answer section, seconds; nil where that is empty.
    public var lifetime: Int?
    /// How long a name or type that is not there may be taken for absent, seconds (RFC 2308 section 5); nil where no SOA
    /// record says so.
    public var negativeLifetime: Int?
}

extension DNSAnswer {
    /// `ipv4only.arpa.` in AAAA, class IN, as it stands in a question.
    static let question: [UInt8] =
        [8] + Array("ipv4only".utf8) + [4] + Array("arpa".utf8) + [0, 0, UInt8(DNSType.aaaa), 0, 1]

    private enum DNSType {
        static let soa = 6
        static let aaaa = 28
    }

    /// Reads a whole message as it came by UDP, or by TCP without its length.
    ///
    ///     +---------------------+---------------------+
    ///     |         ID          |QR Opcode AA TC ... RCODE|
    ///     |      QDCOUNT        |      ANCOUNT        |
    ///     |      NSCOUNT        |      ARCOUNT        |
    ///     | question, answers, authority, additional  |
    public init(message: [UInt8]) throws(DNSProblem) {
        guard message.count >= 12 else { throw .truncated }
        let flags = message.big16(2)
        guard flags & 0xf800 == 0x8000 else { throw .notAnAnswer }
        code = Int(flags & 0xf)
        guard message.big16(4) == 1, message.count >= 12 + Self.question.count,
            message[12..<12 + Self.question.count].elementsEqual(Self.question, by: Self.isSameLetter)
        else { throw .otherQuestion }
        var reader = Reader(bytes: message, position: 12 + Self.question.count)
        for _ in 0..<message.big16(6) {
            let record = try reader.next()
            lifetime = min(lifetime ?? .max, record.lifetime)
            guard record.type == DNSType.aaaa else { continue }
            guard let address = IPv6Address(bytes: record.data) else { throw .record }
            addresses.append(address)
        }
        for _ in 0..<message.big16(8) {
            let record = try reader.next()
            guard record.type == DNSType.soa else { continue }
            // Two names of at least one octet, then five numbers of which the last is the minimum.
            guard record.data.count >= 22 else { throw .record }
            let minimum = Self.seconds(Array(record.data.suffix(4)).big32(0))
            negativeLifetime = min(record.lifetime, minimum)
        }
    }

    private static func isSameLetter(_ left: UInt8, _ right: UInt8) -> Bool {
        func lower(_ octet: UInt8) -> UInt8 { (0x41...0x5a).contains(octet) ? octet | 0x20 : octet }
        return lower(left) == lower(right)
    }

    /// A TTL with its top bit set means none at all (RFC 2181 section 8).
    fileprivate static func seconds(_ value: UInt32) -> Int {
        value >> 31 == 0 ? Int(value) : 0
    }

    /// Steps from record to record; every step goes forward.
    private struct Reader {
        let bytes: [UInt8]
        var position: Int

        struct Record {
            var type: Int
            var lifetime: Int
            var data: ArraySlice<UInt8>
        }

        mutating func next() throws(DNSProblem) -> Record {
            try skipName()
            guard position + 10 <= bytes.count else { throw .truncated }
            let type = Int(bytes.big16(position))
            let lifetime = DNSAnswer.seconds(bytes.big32(position + 4))
            let end = position + 10 + Int(bytes.big16(position + 8))
            guard end <= bytes.count else { throw .truncated }
            defer { position = end }
            return Record(type: type, lifetime: lifetime, data: bytes[position + 10..<end])
        }

        /// Labels, then either the root or a pointer, which ends the name here (RFC 1035 section 4.1.4).
        private mutating func skipName() throws(DNSProblem) {
            while position < bytes.count {
                let length = Int(bytes[position])
                switch length >> 6 {
                case 0: position += 1 + length
                case 3: position += 2
                default: throw .name
                }
                if length == 0 || length >= 0xc0 { return }
            }
            throw .truncated
        }
    }
}
