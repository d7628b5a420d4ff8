import Glibc

/// Writes frames to the TUN; one that fails is lost, as on any wire.
///
/// Datagrams wait in `DatagramBatch`es, one for each direction, until a frame comes that does not fit in, or until whoever
/// reads finds nothing more to read and calls `flush()`. So nothing waits longer than it takes to translate a batch, and
/// within a direction nothing overtakes anything.
package struct TUNSink: PacketSink, ~Copyable {
    private let descriptor: CInt
    /// Frames the kernel would not take since this was last set to zero.
    package var faults: UInt64 = 0
    /// Whether datagrams wait.
    private(set) var isHolding = false
    private var isBatching: Bool
    /// The kernel has taken a super-packet.
    private var isKindKnown = false
    private var toHost = DatagramBatch()
    private var toUplink = DatagramBatch()

    /// - Parameters:
    ///   - descriptor: where frames are written.
    ///   - batches: make super-packets of UDP, where the kernel knows them.
    package init(descriptor: CInt, batches: Bool) {
        self.descriptor = descriptor
        isBatching = batches
    }

    package mutating func send(_ frame: RawSpan) {
        if hold(frame) { return }
        if isHolding {
            flush()
            if hold(frame) { return }
        }
        frame.withUnsafeBytes { write($0, datagrams: 1) }
    }

    /// Sends all that waits.
    package mutating func flush() {
        isHolding = false
        let (forHost, forUplink) = (toHost.count, toUplink.count)
        if forHost > 0 { write(toHost.take(), datagrams: forHost) }
        if forUplink > 0 { write(toUplink.take(), datagrams: forUplink) }
    }

    /// Sends all that waits, and lets nothing wait from now on.
    mutating func stopBatching() {
        flush()
        isBatching = false
    }

    @inline(__always)
    private mutating func hold(_ frame: RawSpan) -> Bool {
        guard isBatching, frame.byteCount > Offload.size,
            frame.load8(Offload.size) >> 4 == 4 ? toHost.append(frame) : toUplink.append(frame)
        else { return false }
        isHolding = true
        return true
    }

    private mutating func write(_ octets: UnsafeRawBufferPointer, datagrams: Int) {
        guard Glibc.write(descriptor, octets.baseAddress, octets.count) < 0 else {
            if datagrams > 1 { isKindKnown = true }
            return
        }
        faults &+= UInt64(datagrams)
        // A kernel that takes no such super-packet after all; not one that found fault with this one.
        if datagrams > 1, errno == EINVAL, !isKindKnown { isBatching = false }
    }
}
