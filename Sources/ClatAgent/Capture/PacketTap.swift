import CLinux
public import ClatBase
import Glibc

/// Copies of all frames that an interface of the calling thread's network namespace sends and receives (packet(7)).
public struct PacketTap: ~Copyable {
    private let socket: OwnedDescriptor
    private var buffer = [UInt8](repeating: 0, count: 1 << 18)

    /// One frame; a super-packet of segmentation offload is one frame too.
    public struct Frame {
        /// Its octets.
        public var data: ArraySlice<UInt8>
        /// How many there were, should the buffer have been too small.
        public var length: Int
        /// Nanoseconds since 1970.
        public var time: UInt64
        /// Which way it went.
        public var direction: Pcapng.Direction
    }

    /// Begins. Needs CAP_NET_RAW there.
    public init(interface: String) throws(SystemError) {
        // No frame comes before the socket is bound: protocol 0 is none.
        let socket = try OwnedDescriptor(socket: AF_PACKET, .raw, named: "a packet socket")
        let index = if_nametoindex(interface)
        guard index != 0 else { throw .last("find the interface \(interface)") }
        try socket.set(SOL_SOCKET, CInt(CLAT_SO_TIMESTAMPNS), CInt(1), "SO_TIMESTAMPNS")
        // As large as may be; a small one only loses frames, which is told.
        try? socket.set(SOL_SOCKET, SO_RCVBUFFORCE, CInt(16 << 20), "SO_RCVBUFFORCE")
        var address = sockaddr_ll()
        address.sll_family = UInt16(AF_PACKET)
        address.sll_protocol = UInt16(ETH_P_ALL).bigEndian
        address.sll_ifindex = CInt(index)
        let descriptor = socket.rawValue
        try retrying("bind a packet socket to \(interface)") {
            withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(
                        descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_ll>.size))
                }
            }
        }
        self.socket = socket
    }

    /// To be polled.
    public var descriptor: CInt { socket.rawValue }

    /// The next frame; nil where none waits.
    public mutating func next() throws(SystemError) -> Frame? {
        var source = sockaddr_ll()
        var time = timespec()
        let count = buffer.withUnsafeMutableBytes { bytes in
            socket.receive(into: bytes, from: &source, flags: CInt(MSG_TRUNC)) { data in
                guard data.level == SOL_SOCKET, data.type == CInt(CLAT_SO_TIMESTAMPNS) else { return }
                time = data.load(as: timespec.self) ?? time
            }
        }
        guard count >= 0 else {
            let code = errno
            if code == EAGAIN || code == EINTR { return nil }
            throw SystemError(call: "receive from a packet socket", code: code)
        }
        if time.tv_sec == 0 { clock_gettime(CLOCK_REALTIME, &time) }
        return Frame(
            data: buffer.prefix(count), length: count,
            time: UInt64(clamping: time.tv_sec) * 1_000_000_000 + UInt64(clamping: time.tv_nsec),
            direction: CInt(source.sll_pkttype) == PACKET_OUTGOING ? .outbound : .inbound)
    }

    /// Frames lost since the last call, because nobody took them in time.
    public func lost() -> Int {
        var statistics = tpacket_stats()
        var size = socklen_t(MemoryLayout<tpacket_stats>.size)
        getsockopt(socket.rawValue, SOL_PACKET, PACKET_STATISTICS, &statistics, &size)
        return Int(statistics.tp_drops)
    }
}
