import CLinux
public import ClatBase
import Glibc
import Synchronization

/// What an ipvlan does elsewhere, for a link that carries none: a thread that brings packets for a few IPv6 addresses from the
/// link to a TAP, and packets from these addresses from the TAP to the link.
///
/// It looks at no packet. The kernel's filters at both ends let through what it may move, so there is nothing to decide; it
/// takes the Ethernet header away, or puts one before. The end of this value's life ends the thread and, with it, the TAP.
public final class UplinkRelay: Sendable {
    /// What its thread is called in /proc.
    public static let threadName = "clat-relay"

    /// What could not be moved.
    public struct Faults: Hashable, Sendable {
        /// Packets the kernel could not hand over.
        public var reads: UInt64
        /// Packets the kernel would not take.
        public var writes: UInt64
        /// Packets that came faster than they were read.
        public var lost: UInt64
    }

    private var shared: Shared { worker.shared }
    private let worker: Worker

    /// The thread, for as long as this lives.
    private struct Worker: ~Copyable, Sendable {
        let shared: Shared
        let thread: ClatBase.Thread<Void>

        deinit {
            shared.set(.stopped)
            thread.join()
        }
    }

    /// Starts the thread; nothing is moved before ``carry(_:)``. The TAP is of the calling thread's network namespace.
    public init(_ tap: consuming TUNDevice, _ sockets: UplinkSockets) throws(SystemError) {
        let shared = try Shared(tap, sockets)
        let thread = try ClatBase.Thread(name: Self.threadName) { shared.run() }
        worker = Worker(shared: shared, thread: thread)
    }

    /// From now on moves packets for and from these addresses.
    public func carry(_ addresses: [IPv6Address]) throws(SystemError) {
        try shared.tap.letOut(addresses)
        try shared.sockets.hear(addresses)
    }

    /// Lets the thread finish what it has in hand, and take nothing more until ``resume()``: packets wait.
    public func pause() {
        shared.set(.paused)
        // Not for ever: a thread that hangs is no reason to.
        for _ in 0..<1000 where !shared.isPaused.load(ordering: .acquiring) && !worker.thread.hasEnded() {
            usleep(1000)
        }
    }

    /// Ends the pause.
    public func resume() { shared.set(.running) }

    /// Of the TAP, and of the sockets that hear and send; valid as long as this lives.
    public var descriptors: [CInt] {
        [shared.tap.descriptor.rawValue, shared.sockets.receiver.rawValue, shared.sockets.sender.rawValue]
    }

    /// What failed so far.
    public var faults: Faults {
        shared.lost.add(shared.sockets.lost(), ordering: .relaxed)
        return Faults(
            reads: shared.readFaults.load(ordering: .relaxed), writes: shared.writeFaults.load(ordering: .relaxed),
            lost: shared.lost.load(ordering: .relaxed))
    }
}

/// How frames of TAP and link become each other's. Both begin with a `virtio_net_hdr`; a frame of the TAP has an Ethernet
/// header behind it.
///
///     TAP         virtio_net_hdr (10)   Ethernet (14)   IPv6 ...
///     none                              virtio_net_hdr (10)   IPv6 ...
///     ppp                                                     IPv6 ...     (to the link only)
///     ethernet    virtio_net_hdr (10)   Ethernet (14)   IPv6 ...
///
/// The packet itself stays where it is, and what is before it is written anew: nothing is copied.
struct RelayHeaders {
    /// Octets before the packet in a buffer.
    static let room = Offload.size + Int(ETH_HLEN)

    private let framing: LinkFraming
    /// Of frames to the TAP, and to the link.
    private let toTAP: [UInt8]
    private let toLink: [UInt8]

    /// - Parameter tap: the TAP's own address, six octets: a frame to any other would be somebody else's.
    init(_ framing: LinkFraming, tap: [UInt8]) {
        self.framing = framing
        let type = [UInt8(truncatingIfNeeded: ETH_P_IPV6 >> 8), UInt8(truncatingIfNeeded: ETH_P_IPV6)]
        toTAP = tap + tap + type
        if case .ethernet(let own) = framing { toLink = own.bytes + own.bytes + type } else { toLink = [] }
    }

    /// Where what is read from the link begins.
    var start: Int { Self.room - Offload.size - framing.headerSize }

    /// A frame of the TAP, at the buffer's beginning, becomes one of the link: where it begins then, nil where it is none.
    func turnToLink(_ buffer: UnsafeMutableRawBufferPointer, octets: Int) -> Int? {
        guard octets >= Self.room + IPv6Header.size else { return nil }
        switch framing {
        case .ethernet: toLink.withUnsafeBytes { write($0, buffer) }
        case .none: moveOffload(buffer, from: 0, to: Int(ETH_HLEN))
        case .ppp: return Self.room
        }
        return start
    }

    /// A frame of the link, at ``start``, becomes one of the TAP, at the buffer's beginning; false where it is none.
    func turnToTAP(_ buffer: UnsafeMutableRawBufferPointer, octets: Int) -> Bool {
        guard start + octets >= Self.room + IPv6Header.size else { return false }
        if start > 0 { moveOffload(buffer, from: start, to: 0) }
        toTAP.withUnsafeBytes { write($0, buffer) }
        return true
    }

    private func write(_ ethernet: UnsafeRawBufferPointer, _ buffer: UnsafeMutableRawBufferPointer) {
        UnsafeMutableRawBufferPointer(rebasing: buffer[Offload.size..<Self.room]).copyMemory(from: ethernet)
    }

    /// What it counts from the frame's beginning it counts from another one now.
    private func moveOffload(_ buffer: UnsafeMutableRawBufferPointer, from: Int, to: Int) {
        var bytes = buffer.mutableBytes
        let moved = Offload(bytes.bytes, at: from).translated(
            gain: from - to, tcpType: Int32(VIRTIO_NET_HDR_GSO_TCPV6))
        moved.store(into: &bytes, at: to)
    }
}

/// What the thread and the relay's owner both hold.
private final class Shared: Sendable {
    enum State: UInt8, AtomicRepresentable { case running, paused, stopped }

    let tap: TUNDevice
    let sockets: UplinkSockets
    private let headers: RelayHeaders
    private let wake: OwnedDescriptor
    private let state = Atomic(State.running)
    let isPaused = Atomic(false)
    let readFaults = Atomic<UInt64>(0)
    let writeFaults = Atomic<UInt64>(0)
    let lost = Atomic<UInt64>(0)

    /// Frames one way before the other way has its turn.
    private static let turn = 64

    init(_ tap: consuming TUNDevice, _ sockets: UplinkSockets) throws(SystemError) {
        headers = RelayHeaders(sockets.framing, tap: try tap.hardwareAddress())
        wake = OwnedDescriptor(adopting: try retrying("eventfd") { eventfd(0, CInt(EFD_CLOEXEC | EFD_NONBLOCK)) })
        self.tap = tap
        self.sockets = sockets
    }

    func set(_ new: State) {
        state.store(new, ordering: .releasing)
        eventfd_write(wake.rawValue, 1)
    }

    /// The body of the thread.
    func run() {
        let (tap, receiver, sender) = (self.tap.descriptor.rawValue, sockets.receiver.rawValue, sockets.sender.rawValue)
        let filter = PacketThread.filter(reading: [tap, receiver, wake.rawValue], writing: [tap, sender])
        // Where the kernel has no filters the translator's thread has none either, and status says so.
        do throws(SystemError) { try PacketThread.confine(filter) } catch {}
        let size = TUNDevice.largestFrame + TUNDevice.bufferAlignment
        let buffers = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * size, alignment: TUNDevice.bufferAlignment)
        defer { buffers.deallocate() }
        let outbound = UnsafeMutableRawBufferPointer(rebasing: buffers[..<size])
        let inbound = UnsafeMutableRawBufferPointer(rebasing: buffers[size...])
        /// Where a frame is in the first buffer that the link had no room for.
        var held = 0..<0
        while true {
            // Until that one is on its way the others wait in the TAP, whose queue knows what to do with too many.
            var ready: (pollfd, pollfd, pollfd) = (
                pollfd(fd: wake.rawValue, events: Int16(POLLIN), revents: 0),
                held.isEmpty
                    ? pollfd(fd: tap, events: Int16(POLLIN), revents: 0)
                    : pollfd(fd: sender, events: Int16(POLLOUT), revents: 0),
                pollfd(fd: receiver, events: Int16(POLLIN), revents: 0)
            )
            _ = withUnsafeMutableBytes(of: &ready) { poll($0.assumingMemoryBound(to: pollfd.self).baseAddress, 3, -1) }
            if ready.0.revents != 0, obey() == .stopped { return }
            if ready.1.revents != 0, !carryOut(outbound, &held) { return }
            if ready.2.revents != 0 { carryIn(inbound) }
        }
    }

    /// Does what the owner wants; what that is in the end.
    private func obey() -> State {
        var count: UInt64 = 0
        eventfd_read(wake.rawValue, &count)
        if state.load(ordering: .acquiring) == .paused {
            isPaused.store(true, ordering: .releasing)
            // By a system call that the thread's filter lets through anyhow.
            while state.load(ordering: .acquiring) == .paused { poll(nil, 0, 1) }
            isPaused.store(false, ordering: .releasing)
        }
        return state.load(ordering: .acquiring)
    }

    /// From the TAP to the link; false where the TAP has gone.
    private func carryOut(_ buffer: UnsafeMutableRawBufferPointer, _ held: inout Range<Int>) -> Bool {
        let (tap, sender) = (self.tap.descriptor.rawValue, sockets.sender.rawValue)
        for _ in 0..<Self.turn {
            if held.isEmpty {
                let count = read(tap, buffer.baseAddress, TUNDevice.largestFrame)
                guard count >= 0 else {
                    switch errno {
                    case EAGAIN, EINTR: return true
                    case EBADFD: return false
                    default: readFaults.add(1, ordering: .relaxed)
                    }
                    continue
                }
                guard let start = headers.turnToLink(buffer, octets: count) else {
                    readFaults.add(1, ordering: .relaxed)
                    continue
                }
                held = start..<count
            }
            let frame = UnsafeRawBufferPointer(rebasing: buffer[held])
            if write(sender, frame.baseAddress, frame.count) < 0 {
                if errno == EAGAIN || errno == EINTR { return true }
                writeFaults.add(1, ordering: .relaxed)
            }
            held = 0..<0
        }
        return true
    }

    /// From the link to the TAP.
    private func carryIn(_ buffer: UnsafeMutableRawBufferPointer) {
        let (tap, receiver) = (self.tap.descriptor.rawValue, sockets.receiver.rawValue)
        for _ in 0..<Self.turn {
            let start = headers.start
            let count = read(receiver, buffer.baseAddress?.advanced(by: start), TUNDevice.largestFrame - start)
            guard count >= 0 else {
                // The link may be down for a while.
                if errno != EAGAIN && errno != EINTR { readFaults.add(1, ordering: .relaxed) }
                return
            }
            guard headers.turnToTAP(buffer, octets: count) else {
                readFaults.add(1, ordering: .relaxed)
                continue
            }
            if write(tap, buffer.baseAddress, start + count) < 0 { writeFaults.add(1, ordering: .relaxed) }
        }
    }
}
