import CLinux
public import ClatBase
import Glibc
import Synchronization

/// The user-space data path of one instance: a thread of its own that reads a frame from the TUN, translates it in
/// place and writes what comes out back to the TUN.
///
/// One thread and blocking reads: what a packet costs is the two system calls and the stack inside them, so more
/// threads buy nothing and cost the order within a flow. The end of this value's life ends the thread and, with it, the TUN.
public struct TranslatorEngine: ~Copyable, Sendable {
    /// Why the thread is no more.
    public enum End: Error, Hashable, Sendable {
        /// The owner wanted it.
        case stopped
        /// The TUN can no longer be read: it was deleted, or its namespace is being taken down.
        case deviceGone(SystemError)
    }

    /// What the thread met that no translator can count.
    public struct Faults: Hashable, Sendable {
        /// Frames the kernel could not hand over.
        public var reads: UInt64
        /// Frames the kernel would not take.
        public var writes: UInt64
    }

    /// What its thread is called in /proc.
    public static let threadName = "clat-packets"

    /// What the translator counts; read it at any time.
    public let counters: TranslatorCounters
    /// Why the thread could not be put under its filter of system calls; nil where it is. It has no capability either way.
    public let filterRefusal: SystemError?
    private let shared: Shared
    private let thread: ClatBase.Thread<Void>

    /// Starts the thread. With a socket for ICMPv6 errors it translates what that brings, too; a poll(2) for each packet is
    /// the price.
    public init(
        _ tun: consuming TUNDevice, errors: consuming ICMPErrorSocket? = nil, configuration: TranslatorConfiguration
    ) throws(SystemError) {
        _ = Self.wakeHandler
        let counters = TranslatorCounters()
        let shared = try Shared(tun, errors, configuration)
        thread = try ClatBase.Thread(name: Self.threadName) { shared.run(counters) }
        self.counters = counters
        self.shared = shared
        filterRefusal = shared.waitForConfinement()
    }

    /// From the next packet on the translator works by this configuration.
    public borrowing func update(_ configuration: TranslatorConfiguration) {
        shared.update(configuration)
    }

    /// Lets the thread finish the packet it has, and take no other until ``resume()``: packets wait in the TUN.
    public borrowing func pause() {
        shared.pause()
        // Not for ever: a thread that hangs is no reason to.
        for _ in 0..<1000 where !shared.isPaused.load(ordering: .acquiring) && !thread.hasEnded() {
            thread.signal(Self.wakeSignal)
            usleep(1000)
        }
    }

    /// Ends the pause.
    public borrowing func resume() {
        shared.resume()
    }

    /// To be polled for reading: ready once the thread has ended by itself.
    public var endDescriptor: CInt { shared.ended.rawValue }

    /// The TUN's, valid as long as the engine lives.
    public var tunDescriptor: CInt { shared.tun.descriptor.rawValue }

    /// The TUN's interface index.
    public var tunIndex: UInt32 { shared.tun.interfaceIndex }

    /// Nil while the thread runs.
    public var end: End? { shared.end.withLock { $0 } }

    /// Reads and writes that failed so far.
    public var faults: Faults {
        Faults(reads: shared.readFaults.load(ordering: .relaxed), writes: shared.writeFaults.load(ordering: .relaxed))
    }

    /// Ends the thread and closes the TUN. The end of the value's life does the same.
    public consuming func stop() {}

    deinit {
        shared.stop()
        // A signal that comes just before the thread enters read(2) is lost, hence more than one.
        while !thread.hasEnded() {
            thread.signal(Self.wakeSignal)
            usleep(1000)
        }
        thread.join()
    }

    /// Interrupts a blocking read; nothing else in the process uses it.
    fileprivate static var wakeSignal: CInt { __libc_current_sigrtmin() + 1 }

    /// Without SA_RESTART, so that the read returns EINTR.
    private static let wakeHandler: Void = {
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { _ in }
        sigaction(wakeSignal, &action, nil)
    }()
}

/// What the thread and the engine's owner both hold.
private final class Shared: Sendable {
    let tun: TUNDevice
    private let errors: ICMPErrorSocket?
    let end = Mutex<TranslatorEngine.End?>(nil)
    let ended: OwnedDescriptor
    private let confined: OwnedDescriptor
    private let filterRefusal = Mutex<SystemError?>(nil)
    let readFaults = Atomic<UInt64>(0)
    let writeFaults = Atomic<UInt64>(0)
    private let latest: Mutex<TranslatorConfiguration>
    /// Counts the configurations; the one thing the thread looks at for every packet.
    private let generation = Atomic<UInt64>(0)
    private static let stopGeneration = UInt64.max
    private static let pauseGeneration = UInt64.max - 1
    let isPaused = Atomic(false)

    init(
        _ tun: consuming TUNDevice, _ errors: consuming ICMPErrorSocket?, _ configuration: TranslatorConfiguration
    ) throws(SystemError) {
        ended = OwnedDescriptor(
            adopting: try retrying("eventfd") { eventfd(0, CInt(EFD_CLOEXEC | EFD_NONBLOCK)) })
        confined = OwnedDescriptor(adopting: try retrying("eventfd") { eventfd(0, CInt(EFD_CLOEXEC)) })
        self.tun = tun
        self.errors = errors
        latest = Mutex(configuration)
    }

    func update(_ configuration: TranslatorConfiguration) {
        latest.withLock {
            $0 = configuration
            // After a pause the thread looks at the configuration anyhow.
            if generation.load(ordering: .relaxed) < Self.pauseGeneration {
                generation.add(1, ordering: .releasing)
            }
        }
    }

    func stop() {
        latest.withLock { _ in generation.store(Self.stopGeneration, ordering: .releasing) }
    }

    /// Why the thread has no filter of system calls, once that is settled.
    func waitForConfinement() -> SystemError? {
        var settled: UInt64 = 0
        while eventfd_read(confined.rawValue, &settled) != 0 && errno == EINTR {}
        return filterRefusal.withLock { $0 }
    }

    func pause() {
        latest.withLock { _ in generation.store(Self.pauseGeneration, ordering: .releasing) }
    }

    func resume() {
        // Another than any before, so that the thread looks at the configuration.
        latest.withLock { _ in generation.store(1 << 62, ordering: .releasing) }
    }

    /// The body of the thread.
    func run(_ counters: TranslatorCounters) {
        let errorDescriptor: CInt? =
            switch errors {
            case nil: nil
            case .some(let errors): errors.descriptor
            }
        let filter = PacketThread.filter(
            reading: [tun.descriptor.rawValue], errors: errorDescriptor,
            writing: [tun.descriptor.rawValue, ended.rawValue, confined.rawValue])
        do throws(SystemError) { try PacketThread.confine(filter, wakeSignal: TranslatorEngine.wakeSignal) } catch {
            filterRefusal.withLock { $0 = error }
        }
        eventfd_write(confined.rawValue, 1)
        let reason = translate(counters)
        end.withLock { $0 = reason }
        if reason != .stopped { eventfd_write(ended.rawValue, 1) }
    }

    private func translate(_ counters: TranslatorCounters) -> TranslatorEngine.End {
        let headroom = Translator.headroom
        let buffer = UnsafeMutableRawBufferPointer.allocate(
            byteCount: headroom + TUNDevice.largestFrame, alignment: TUNDevice.bufferAlignment)
        defer { buffer.deallocate() }
        let room = UnsafeMutableRawBufferPointer(rebasing: buffer[headroom...])
        var source = Source.tun
        var current: UInt64 = 0
        var translator = Translator(latest.withLock { $0 }, counters: counters)
        var sink = TUNSink(descriptor: tun.descriptor.rawValue, batches: tun.offloads.contains(.udp))
        while true {
            let count = receive(into: room, &source, waits: !sink.isHolding)
            let code = errno
            let newest = generation.load(ordering: .relaxed)
            if newest != current {
                // The number first: should both change once more, the next packet looks again.
                current = newest
                translator.update(latest.withLock { $0 })
            }
            if count >= 0 {
                var bytes = buffer.mutableBytes
                translator.translate(
                    &bytes, frame: headroom..<headroom + count, now: Self.coarseNanoseconds, into: &sink)
                sink.finishFrame()
                if sink.faults != 0 {
                    writeFaults.add(sink.faults, ordering: .relaxed)
                    sink.faults = 0
                }
            } else {
                switch code {
                case EAGAIN: sink.flush()
                case EINTR: break
                case EOPNOTSUPP where sink.isHolding: sink.stopBatching()
                case EINVAL, ENOMEM: readFaults.add(1, ordering: .relaxed)
                case _ where source == .errors: readFaults.add(1, ordering: .relaxed)
                default: return .deviceGone(SystemError(call: "read from the TUN", code: code))
                }
            }
            // Once the packet in hand is on its way.
            if newest >= Self.pauseGeneration {
                sink.flush()
                if newest == Self.stopGeneration { return .stopped }
                waitForEndOfPause()
            }
        }
    }

    private func waitForEndOfPause() {
        isPaused.store(true, ordering: .releasing)
        // By a system call that the thread's filter lets through anyhow.
        while generation.load(ordering: .acquiring) == Self.pauseGeneration { poll(nil, 0, 1) }
        isPaused.store(false, ordering: .releasing)
    }

    /// Where a frame comes from.
    private enum Source { case tun, errors }

    /// Reads a frame, and waits for one if it may; -1 and errno as read(2). Where both have one they take turns, so that
    /// neither starves the other; `source` is whose turn it was.
    @inline(__always)
    private func receive(into room: UnsafeMutableRawBufferPointer, _ source: inout Source, waits: Bool) -> Int {
        switch errors {
        case nil: break
        case .some(let errors):
            var ready: (tun: pollfd, errors: pollfd) = (
                pollfd(fd: tun.descriptor.rawValue, events: Int16(POLLIN), revents: 0),
                pollfd(fd: errors.descriptor, events: Int16(POLLIN), revents: 0)
            )
            let count = withUnsafeMutableBytes(of: &ready) {
                poll($0.assumingMemoryBound(to: pollfd.self).baseAddress, 2, waits ? -1 : 0)
            }
            if count == 0 { errno = EAGAIN }
            guard count > 0 else { return -1 }
            source = ready.errors.revents != 0 && (ready.tun.revents == 0 || source == .tun) ? .errors : .tun
            if source == .errors { return errors.receive(into: room) }
        }
        if waits { return read(tun.descriptor.rawValue, room.baseAddress, room.count) }
        var whole = iovec(iov_base: room.baseAddress, iov_len: room.count)
        return preadv2(tun.descriptor.rawValue, &whole, 1, -1, RWF_NOWAIT)
    }

    /// CLOCK_MONOTONIC to a tick (some milliseconds), which takes a tenth of the exact time's cost.
    private static var coarseNanoseconds: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC_COARSE, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
