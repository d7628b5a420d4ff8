import CLibMnl
import Glibc

/// A netlink request in the making, in a buffer of its own, written by libmnl's bounded put functions.
///
/// Octets: struct nlmsghdr (16), a fixed structure of the message type, attributes (4 octets of header, value, padding
/// to four). Sequence number and port are zero until the socket sends it.
struct Request: ~Copyable {
    /// Several times the largest request of this module, a veth pair.
    private static let capacity = 1024

    private let storage: UnsafeMutableRawPointer
    private let header: UnsafeMutablePointer<nlmsghdr>

    /// Something did not fit (a name of a thousand octets); such a request is not for sending.
    private(set) var isOverfull = false

    /// A request that wants an ACK or, with NLM_F_DUMP, the whole table.
    init<Body: BitwiseCopyable>(_ type: Int, _ flags: CInt, _ body: Body) {
        storage = .allocate(byteCount: Self.capacity, alignment: Int(MNL_ALIGNTO))
        // Libmnl leaves the padding of attributes as it finds it.
        storage.initializeMemory(as: UInt8.self, repeating: 0, count: Self.capacity)
        header = mnl_nlmsg_put_header(storage)
        header.pointee.nlmsg_type = UInt16(truncatingIfNeeded: type)
        let answer = flags & NLM_F_DUMP == NLM_F_DUMP ? 0 : NLM_F_ACK
        header.pointee.nlmsg_flags = UInt16(truncatingIfNeeded: NLM_F_REQUEST | answer | flags)
        put(body)
    }

    deinit { storage.deallocate() }

    /// The octets so far.
    var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: storage, count: Int(header.pointee.nlmsg_len))
    }

    /// Whether it asks for a whole table, and changes nothing.
    var isListing: Bool { CInt(header.pointee.nlmsg_flags) & NLM_F_DUMP == NLM_F_DUMP }

    /// Sets the number by which the socket knows the answer.
    func stamp(sequence: UInt32) {
        header.pointee.nlmsg_seq = sequence
    }

    /// A fixed structure: the message's own, or that of a message within an attribute (VETH_INFO_PEER).
    mutating func put<Body: BitwiseCopyable>(_ body: Body) {
        let size = MemoryLayout<Body>.size
        guard Int(header.pointee.nlmsg_len) + aligned(size) <= Self.capacity else { return isOverfull = true }
        mnl_nlmsg_put_extra_header(header, size).storeBytes(of: body, as: Body.self)
    }

    // One function per width: a generic one would take an Int or an Optional, and write as many octets as these have.

    /// An octet.
    mutating func put(_ type: some BinaryInteger, _ value: UInt8) { put(type, copying: value) }

    /// Two octets in host order.
    mutating func put(_ type: some BinaryInteger, _ value: UInt16) { put(type, copying: value) }

    /// Four octets in host order.
    mutating func put(_ type: some BinaryInteger, _ value: UInt32) { put(type, copying: value) }

    /// Four octets in host order, such as a descriptor.
    mutating func put(_ type: some BinaryInteger, _ value: Int32) { put(type, copying: value) }

    /// The lifetimes of an address.
    mutating func put(_ type: some BinaryInteger, _ value: ifa_cacheinfo) { put(type, copying: value) }

    private mutating func put(_ type: some BinaryInteger, copying value: some BitwiseCopyable) {
        let type = UInt16(truncatingIfNeeded: type)
        let fits = withUnsafeBytes(of: value) {
            mnl_attr_put_check(header, Self.capacity, type, $0.count, $0.baseAddress)
        }
        if !fits { isOverfull = true }
    }

    /// Octets as they are.
    mutating func put(_ type: some BinaryInteger, octets: [UInt8]) {
        if !mnl_attr_put_check(header, Self.capacity, UInt16(truncatingIfNeeded: type), octets.count, octets) {
            isOverfull = true
        }
    }

    /// A string with a NUL.
    mutating func put(_ type: some BinaryInteger, text: String) {
        if !mnl_attr_put_strz_check(header, Self.capacity, UInt16(truncatingIfNeeded: type), text) {
            isOverfull = true
        }
    }

    /// Attributes within an attribute.
    mutating func nest(_ type: some BinaryInteger, _ body: (inout Request) -> Void) {
        guard let nest = mnl_attr_nest_start_check(header, Self.capacity, UInt16(truncatingIfNeeded: type)) else {
            return isOverfull = true
        }
        body(&self)
        mnl_attr_nest_end(header, nest)
    }
}
