import CLinux

/// What the kernel says about a packet's checksum and segmentation, and asks of whoever sends it on (linux/virtio_net.h):
/// 10 octets in the machine's byte order before each packet of a TUN with IFF_VNET_HDR.
///
///     0 flags   1 gso_type   2 hdr_len   4 gso_size   6 csum_start   8 csum_offset
///
/// With NEEDS_CSUM the checksum field holds the sum of the pseudo-header, not inverted, and whoever sends the packet adds
/// the rest from `csum_start` on. `gso_size` is the payload of each segment; it does not change in translation.
typealias Offload = virtio_net_hdr

extension virtio_net_hdr {
    static let size = 10

    @inline(__always)
    init(_ bytes: RawSpan, at offset: Int) {
        self = bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: virtio_net_hdr.self)
    }

    @inline(__always)
    func store(into bytes: inout MutableRawSpan, at offset: Int) {
        bytes.storeBytes(of: self, toByteOffset: offset, as: virtio_net_hdr.self)
    }

    @inline(__always)
    var needsChecksum: Bool {
        get { flags & UInt8(VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0 }
        set {
            if newValue {
                flags |= UInt8(VIRTIO_NET_HDR_F_NEEDS_CSUM)
            } else {
                flags &= ~UInt8(VIRTIO_NET_HDR_F_NEEDS_CSUM)
                (csum_start, csum_offset) = (0, 0)
            }
        }
    }

    /// A super-packet that the kernel or the card will cut.
    @inline(__always)
    var isGSO: Bool { gso_type != UInt8(VIRTIO_NET_HDR_GSO_NONE) }

    /// `gso_type` without the flag for TCP's ECN.
    private var segmentation: UInt8 { gso_type & ~UInt8(VIRTIO_NET_HDR_GSO_ECN) }

    /// Whether the super-packet is of that protocol and version, as its segments will be.
    func segments(_ protocolNumber: UInt8, tcpType: Int32) -> Bool {
        guard gso_size > 0 else { return false }
        if protocolNumber == IPProtocol.tcp { return segmentation == UInt8(tcpType) }
        if protocolNumber == IPProtocol.udp { return gso_type == UInt8(VIRTIO_NET_HDR_GSO_UDP_L4) }
        return false
    }

    /// The same request for the packet whose IP headers have become `gain` octets longer (negative: shorter).
    @inline(__always)
    func translated(gain: Int, tcpType: Int32) -> Offload {
        var result = self
        result.flags &= UInt8(VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID)
        if needsChecksum { result.csum_start = UInt16(truncatingIfNeeded: Int(csum_start) &+ gain) }
        let headers = Int(hdr_len) &+ gain
        result.hdr_len = hdr_len == 0 || headers < 0 ? 0 : UInt16(truncatingIfNeeded: min(headers, 0xffff))
        if isGSO, segmentation != UInt8(VIRTIO_NET_HDR_GSO_UDP_L4) {
            result.gso_type = UInt8(tcpType) | gso_type & UInt8(VIRTIO_NET_HDR_GSO_ECN)
        }
        return result
    }
}

extension virtio_net_hdr {
    /// Does what NEEDS_CSUM asks for, if the field is in the packet. A sum of zero becomes 0xffff, as UDP demands and the
    /// others allow.
    mutating func finishChecksum(_ buffer: inout MutableRawSpan, packet: Range<Int>) {
        let start = packet.lowerBound &+ Int(csum_start)
        let field = start &+ Int(csum_offset)
        needsChecksum = false
        guard field &+ 2 <= packet.upperBound else { return }
        let sum = ~Checksum.sum(buffer.bytes.extracting(start..<packet.upperBound))
        buffer.store16(sum == 0 ? 0xffff : sum, field)
    }
}
