import CLibMnl
import Glibc

// Reading netlink messages (linux/netlink.h). What comes from a socket is outside input: nothing here trusts a length.
// A cursor hands out only ranges that lie within the bytes it was given; `load` checks the size of what it reads; so no
// message, however made, can do more than throw `MalformedMessage`. Values longer than expected are read by their head,
// because that is how the kernel extends its structures. Writing is in Request.swift, over libmnl.

/// Why a netlink message could not be read.
public enum MalformedMessage: Error, Hashable, Sendable, CustomStringConvertible {
    /// A structure or number needs more octets than are there.
    case truncated(needed: Int, available: Int)
    /// The length field of a message or attribute is smaller than its own header or larger than what encloses it.
    case length(Int, available: Int)
    /// A value outside of what its field can mean, such as a prefix length of 200.
    case value(String)

    /// A phrase.
    public var description: String {
        switch self {
        case .truncated(let needed, let available): "\(needed) octets needed, \(available) there"
        case .length(let length, let available): "length field \(length) with \(available) octets there"
        case .value(let what): what
        }
    }
}

extension RawSpan {
    /// The head of a range as a number in host order or a structure of the kernel.
    func load<Value: BitwiseCopyable>(
        _ type: Value.Type, at range: Range<Int>
    ) throws(MalformedMessage) -> Value {
        guard range.lowerBound >= 0, range.upperBound <= byteCount, range.count >= MemoryLayout<Value>.size else {
            throw .truncated(needed: MemoryLayout<Value>.size, available: range.count)
        }
        return unsafeLoadUnaligned(fromByteOffset: range.lowerBound, as: type)
    }

    /// The octets of a range.
    func octets(at range: Range<Int>) -> [UInt8] {
        range.clamped(to: 0..<byteCount).map { unsafeLoad(fromByteOffset: $0, as: UInt8.self) }
    }

    /// Text up to the first NUL or the end of the range; what is not UTF-8 is replaced.
    func text(at range: Range<Int>) -> String {
        String(decoding: octets(at: range).prefix { $0 != 0 }, as: UTF8.self)
    }
}

/// One message of a datagram: its header's fields and where its body is.
struct Message {
    /// RTM_NEWLINK, NLMSG_ERROR and so on.
    let type: Int
    /// NLM_F_MULTI and so on.
    let flags: CInt
    /// The request's sequence number; zero in notices.
    let sequence: UInt32
    /// The port of the socket that asked; zero in notices.
    let port: UInt32
    /// What follows the header.
    let body: Range<Int>
}

/// Walks the messages of a datagram.
struct MessageCursor {
    private var offset = 0

    /// The next message; nil at the end.
    mutating func next(in bytes: RawSpan) throws(MalformedMessage) -> Message? {
        let available = bytes.byteCount - offset
        guard available > 0 else { return nil }
        let start = offset
        offset = bytes.byteCount
        let header = try bytes.load(nlmsghdr.self, at: start..<bytes.byteCount)
        let size = MemoryLayout<nlmsghdr>.size
        guard header.nlmsg_len >= size, header.nlmsg_len <= available else {
            throw .length(Int(clamping: header.nlmsg_len), available: available)
        }
        let length = Int(header.nlmsg_len)
        offset = min(aligned(start + length), bytes.byteCount)
        return Message(
            type: Int(header.nlmsg_type), flags: CInt(header.nlmsg_flags), sequence: header.nlmsg_seq,
            port: header.nlmsg_pid, body: start + size..<start + length)
    }
}

/// One attribute: its type without the flag bits, and where its value is.
struct Attribute {
    let type: Int
    let value: Range<Int>
}

/// Walks the attributes in a range.
struct AttributeCursor {
    private var rest: Range<Int>

    /// The attributes of a nest, or any other range that holds nothing else.
    init(_ range: Range<Int>) {
        rest = range
    }

    /// The attributes after the fixed structure that begins a message's body.
    init<Header>(_ body: Range<Int>, after header: Header.Type) {
        let start = min(body.lowerBound + aligned(MemoryLayout<Header>.size), body.upperBound)
        rest = start..<body.upperBound
    }

    /// The next attribute; nil at the end. Fewer octets than a header at the end are padding.
    mutating func next(in bytes: RawSpan) throws(MalformedMessage) -> Attribute? {
        let size = MemoryLayout<nlattr>.size
        guard rest.count >= size else { return nil }
        let header = try bytes.load(nlattr.self, at: rest)
        let length = Int(header.nla_len)
        guard length >= size, length <= rest.count else { throw .length(length, available: rest.count) }
        let value = rest.lowerBound + size..<rest.lowerBound + length
        rest = min(aligned(value.upperBound), rest.upperBound)..<rest.upperBound
        return Attribute(type: Int(header.nla_type & ~UInt16(NLA_F_NESTED | NLA_F_NET_BYTEORDER)), value: value)
    }
}

/// `NLMSG_ALIGN(len)` and `NLA_ALIGN(len)`: up to a multiple of four.
func aligned(_ length: Int) -> Int {
    (length + 3) & ~3
}
