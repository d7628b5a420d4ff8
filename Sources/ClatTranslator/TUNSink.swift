import Glibc

/// Writes frames to the TUN; one that fails is lost, as on any wire.
///
/// Datagrams wait in `DatagramBatch`es, one for each flow, until one comes that does not fit into its flow's, until something else
/// than a datagram comes, until `patience` frames were read, or until whoever reads finds nothing more to read and calls `flush()`. So
/// within a flow nothing overtakes anything, and nothing waits for long.
package struct TUNSink: PacketSink, ~Copyable {
    /// So many frames are read, and no more, before what waits is sent.
    static let patience = 256

    private let descriptor: CInt
    /// Frames the kernel would not take since this was last set to zero.
    package var faults: UInt64 = 0
    /// Whether datagrams wait.
    var isHolding: Bool { held > 0 }
    private var isBatching: Bool
    /// The kernel has taken a super-packet.
    private var isKindKnown = false
    /// The first `held` of them are those of the flows with these keys; datagrams of further flows do not wait.
    private var batches = InlineArray<16, DatagramBatch> { _ in DatagramBatch() }
    private var keys = InlineArray<16, UInt32>(repeating: 0)
    private var held = 0
    /// Frames that were read since something waits.
    private var passed = 0

    /// - Parameters:
    ///   - descriptor: where frames are written.
    ///   - batches: make super-packets of UDP, where the kernel knows them.
    package init(descriptor: CInt, batches: Bool) {
        self.descriptor = descriptor
        isBatching = batches
    }

    package mutating func send(_ frame: RawSpan) {
        if isBatching, frame.byteCount > Offload.size, let flow = DatagramBatch.flow(of: frame) {
            if hold(frame, of: flow) { return }
        } else if isHolding {
            flush()
        }
        frame.withUnsafeBytes { write($0, datagrams: 1) }
    }

    /// To be called after each frame that was read, whatever came of it.
    package mutating func finishFrame() {
        guard isHolding else { return }
        passed &+= 1
        if passed == Self.patience { flush() }
    }

    /// Sends all that waits, the flows in the order in which they began to.
    package mutating func flush() {
        for index in 0..<held { sendBatch(index) }
        (held, passed) = (0, 0)
    }

    /// Sends all that waits, and lets nothing wait from now on.
    mutating func stopBatching() {
        flush()
        isBatching = false
    }

    /// False if the datagram is to be sent by itself, now.
    @inline(__always)
    private mutating func hold(_ frame: RawSpan, of flow: DatagramBatch.Flow) -> Bool {
        for index in 0..<held where keys[index] == flow.key {
            if batches[index].append(frame, of: flow) { return true }
            sendBatch(index)
            return batches[index].append(frame, of: flow)
        }
        guard held < batches.count, batches[held].append(frame, of: flow) else { return false }
        keys[held] = flow.key
        held &+= 1
        return true
    }

    private mutating func sendBatch(_ index: Int) {
        let datagrams = batches[index].count
        if datagrams > 0 { write(batches[index].take(), datagrams: datagrams) }
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
