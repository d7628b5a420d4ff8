/// The parts of an ICMP error after its header (RFC 4884): the start of the original datagram and, if the message says
/// where that ends, an extension structure. A message that says nothing has none, whatever its size.
struct ErrorBody {
    /// Offsets within the message.
    var datagram: Range<Int>
    /// A whole extension structure with a right checksum.
    var extensions: Range<Int>?

    /// `attribute` is where the datagram's length is, in units of `unit` octets.
    init(_ message: RawSpan, attribute: Int, unit: Int, isExtensible: Bool) {
        datagram = ICMPHeader.size..<message.byteCount
        let length = Int(message.load8(attribute)) * unit
        guard isExtensible, length >= 128, ICMPHeader.size + length <= message.byteCount else { return }
        datagram = ICMPHeader.size..<ICMPHeader.size + length
        let rest = datagram.upperBound..<message.byteCount
        // Version 2 in the top four bits; a checksum of zero means none (RFC 4884 section 7).
        guard rest.count >= 4, rest.count % 4 == 0, message.load8(rest.lowerBound) >> 4 == 2,
            message.load16(rest.lowerBound + 2) == 0 || Checksum.sum(message.extracting(rest)) == 0xffff
        else { return }
        extensions = rest
    }
}

/// The Node Identification object (draft-ietf-intarea-extended-icmp-nodeid): which node sent an ICMP error.
///
///     0 length 24   2 class 5   3 c-type 4: an IP address   4 address family 2: IPv6   6 zero   8 address
enum NodeIdentification {
    static let size = 24
    /// Octets before the first object: version 2 in the top four bits, zero, and a checksum over the structure.
    static let structureHeader = 4

    /// Writes the object at the end of an extension structure, and the structure's checksum.
    static func append(
        _ high: UInt64, _ low: UInt64, into frame: inout MutableRawSpan, structure: Range<Int>, isNew: Bool
    ) {
        if isNew { frame.store32(2 << 28, structure.lowerBound) }
        let object = structure.upperBound - size
        frame.store32(UInt32(size) << 16 | 5 << 8 | 4, object)
        frame.store32(2 << 16, object + 4)
        frame.store64(high, object + 8)
        frame.store64(low, object + 16)
        frame.store16(0, structure.lowerBound + 2)
        frame.store16(~Checksum.sum(frame.bytes.extracting(structure)), structure.lowerBound + 2)
    }
}
