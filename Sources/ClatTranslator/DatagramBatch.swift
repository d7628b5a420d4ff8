import CLinux
import Glibc

/// Datagrams of one UDP flow that came one after the other, put together into a super-packet: it crosses the kernel in the
/// time of one packet, and the device or the receiver cuts it into the datagrams it is made of.
///
/// A batch holds datagrams of one size, the last of which may be shorter, whose headers differ in nothing but lengths,
/// checksums and the IPv4 identification. A datagram with a wrong checksum stays out, for the kernel computes those of a
/// super-packet anew.
struct DatagramBatch: ~Copyable {
    /// The kernel takes no more in one super-packet (`UDP_MAX_SEGMENTS`, twice that since Linux 6.9).
    static let limit = 64
    /// Octets of the largest super-packet, with its `virtio_net_hdr`; its length must fit into the IP header. A crossing shared by twenty
    /// datagrams of full size costs each next to nothing, so there is no need for twice the memory.
    static let capacity = 32768

    /// What a datagram belongs to.
    struct Flow {
        /// Equal for datagrams of the same addresses and ports; for others too, by chance.
        let key: UInt32
        /// Octets of the IP header, 20 or 40.
        fileprivate let headerLength: Int
    }

    /// How many datagrams wait.
    private(set) var count = 0
    /// Octets of the IP header, 20 or 40.
    private var headerLength = 0
    /// Octets of payload of each datagram; of the last, this or fewer.
    private var payload = 0
    /// The last was shorter, so that nothing can follow it.
    private var isClosed = false
    /// The first datagram's checksum is known to be right.
    private var isChecked = false
    /// Octets of the frame so far: `virtio_net_hdr`, IP header, UDP header, payloads.
    private var length = 0
    private let storage = UnsafeMutableRawBufferPointer.allocate(
        byteCount: capacity, alignment: TUNDevice.bufferAlignment)

    deinit { storage.deallocate() }

    /// Takes in a frame of that flow. False if the datagram cannot stand in this batch.
    @inline(__always)
    mutating func append(_ frame: RawSpan, of flow: Flow) -> Bool {
        let headerLength = flow.headerLength
        let payload = frame.byteCount &- Offload.size &- headerLength &- Self.udpHeader
        if count == 0 {
            guard frame.byteCount <= storage.count else { return false }
            (self.headerLength, self.payload, isClosed, isChecked, length) = (headerLength, payload, false, false, 0)
            copy(frame)
            return true
        }
        guard !isClosed, count < Self.limit, headerLength == self.headerLength, payload <= self.payload,
            length &+ payload <= storage.count, Self.areAlike(storage.bytes, frame, headerLength),
            isChecked || Self.isChecksumRight(storage.bytes.extracting(0..<length), headerLength),
            Self.isChecksumRight(frame, headerLength)
        else { return false }
        (isChecked, isClosed) = (true, payload < self.payload)
        copy(frame.extracting((frame.byteCount &- payload)...))
        return true
    }

    /// The frame to send, valid until the next change; the batch is as if empty then. A datagram that is alone is as it came.
    mutating func take() -> UnsafeRawBufferPointer {
        if count > 1 { writeHeaders() }
        count = 0
        return UnsafeRawBufferPointer(rebasing: storage[..<length])
    }

    private mutating func copy(_ octets: RawSpan) {
        var bytes = storage.mutableBytes
        bytes.copy(octets, to: length)
        length &+= octets.byteCount
        count &+= 1
    }

    /// Makes the first datagram's headers those of the super-packet.
    private func writeHeaders() {
        var bytes = storage.mutableBytes
        let udp = Offload.size &+ headerLength
        var offload = Offload()
        offload.flags = UInt8(VIRTIO_NET_HDR_F_NEEDS_CSUM)
        offload.gso_type = UInt8(VIRTIO_NET_HDR_GSO_UDP_L4)
        offload.hdr_len = UInt16(truncatingIfNeeded: headerLength &+ Self.udpHeader)
        offload.gso_size = UInt16(truncatingIfNeeded: payload)
        offload.csum_start = UInt16(truncatingIfNeeded: headerLength)
        offload.csum_offset = UInt16(Self.checksumField)
        offload.store(into: &bytes, at: 0)
        let udpLength = length &- udp
        bytes.store16(UInt16(truncatingIfNeeded: udpLength), udp &+ 4)
        let pseudo = Checksum.pseudoHeader(length: udpLength, nextHeader: IPProtocol.udp)
        let addresses = Checksum.sum(bytes.bytes.extracting(Self.addresses(headerLength)..<udp))
        bytes.store16(Checksum.fold(pseudo &+ UInt64(addresses)), udp &+ Self.checksumField)
        if headerLength == IPv4Header.size {
            bytes.store16(UInt16(truncatingIfNeeded: length &- Offload.size), Offload.size &+ 2)
            bytes.store16(0, Offload.size &+ 10)
            bytes.store16(~Checksum.sum(bytes.bytes.extracting(Offload.size..<udp)), Offload.size &+ 10)
        } else {
            bytes.store16(UInt16(truncatingIfNeeded: udpLength), Offload.size &+ 4)
        }
    }

    // MARK: frames

    private static let udpHeader = 8
    private static let checksumField = 6

    /// Where source and destination are in a frame; the UDP header follows them.
    private static func addresses(_ headerLength: Int) -> Int { headerLength == IPv4Header.size ? 22 : 18 }

    /// The flow of a frame that may stand in a batch; nil of any other.
    @inline(__always)
    static func flow(of frame: RawSpan) -> Flow? {
        guard let headerLength = headerLength(frame) else { return nil }
        // Of IPv6 the destination alone, as all that goes there has few sources. The multiplier is 2 to the 32nd over the golden ratio.
        let end = Offload.size &+ headerLength
        let hosts =
            headerLength == IPv4Header.size
            ? frame.load64(end &- 8) : frame.load64(end &- 16) ^ frame.load64(end &- 8)
        let folded = UInt32(truncatingIfNeeded: hosts ^ hosts >> 32)
        return Flow(key: (folded &* 0x9e37_79b1) ^ frame.load32(end), headerLength: headerLength)
    }

    /// Octets of the IP header if a frame is one UDP datagram with payload, without fragments, options, extension headers or
    /// octets past its end.
    @inline(__always)
    private static func headerLength(_ frame: RawSpan) -> Int? {
        guard frame.byteCount > Offload.size &+ IPv4Header.size &+ udpHeader else { return nil }
        let length = frame.byteCount &- Offload.size
        let headerLength: Int
        switch frame.load8(Offload.size) {
        case 0x45:
            guard frame.load8(19) == IPProtocol.udp, frame.load16(16) & 0x3fff == 0, Int(frame.load16(12)) == length
            else {
                return nil
            }
            headerLength = IPv4Header.size
        case 0x60...0x6f:
            guard frame.load8(16) == IPProtocol.udp, Int(frame.load16(14)) == length &- IPv6Header.size,
                length > IPv6Header.size &+ udpHeader
            else { return nil }
            headerLength = IPv6Header.size
        default: return nil
        }
        guard !Offload(frame, at: 0).isGSO,
            Int(frame.load16(Offload.size &+ headerLength &+ 4)) == length &- headerLength
        else { return nil }
        return headerLength
    }

    /// Whether two datagrams with headers of that length are alike but for lengths, checksums and identification.
    private static func areAlike(_ left: RawSpan, _ right: RawSpan, _ headerLength: Int) -> Bool {
        let addresses = addresses(headerLength)
        guard left.load64(addresses) == right.load64(addresses), left.load16(10) == right.load16(10),
            left.load32(Offload.size &+ headerLength) == right.load32(Offload.size &+ headerLength)
        else { return false }
        return headerLength == IPv4Header.size
            // Flags, TTL and protocol.
            ? left.load32(16) == right.load32(16)
            // Flow label, hop limit and the rest of the addresses.
            : left.load16(12) == right.load16(12) && left.load16(16) == right.load16(16)
                && left.load64(26) == right.load64(26) && left.load64(34) == right.load64(34)
                && left.load64(42) == right.load64(42)
    }

    /// Whether the checksum is still to be computed, was found right by the kernel, or is found right here.
    private static func isChecksumRight(_ frame: RawSpan, _ headerLength: Int) -> Bool {
        let offload = Offload(frame, at: 0)
        if offload.needsChecksum {
            return Int(offload.csum_start) == headerLength && Int(offload.csum_offset) == checksumField
        }
        let udp = Offload.size &+ headerLength
        guard frame.load16(udp &+ checksumField) != 0 else { return false }
        if offload.flags & UInt8(VIRTIO_NET_HDR_F_DATA_VALID) != 0 { return true }
        let pseudo = Checksum.pseudoHeader(length: frame.byteCount &- udp, nextHeader: IPProtocol.udp)
        let sum = Checksum.sum(frame.extracting(addresses(headerLength)...))
        return Checksum.fold(pseudo &+ UInt64(sum)) == 0xffff
    }
}
