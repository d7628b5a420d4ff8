import CLinux
import Glibc

/// Waits for descriptors and for one deadline, and calls back. One thread, no locks: asleep unless something happens.
public final class Reactor {
    /// What to wait for.
    public struct Interest: OptionSet, Sendable {
        /// epoll's bits.
        public let rawValue: UInt32
        /// Those bits.
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// Something to read, or the other side is gone.
        public static let read = Interest(rawValue: EPOLLIN.rawValue)
        /// Room to write.
        public static let write = Interest(rawValue: EPOLLOUT.rawValue)
    }

    private let epoll: OwnedDescriptor
    private let timer: OwnedDescriptor
    private var handlers: [CInt: () -> Void] = [:]
    private var deadline: BootInstant?
    /// Until when nobody is called for these.
    private var pauses: [CInt: BootInstant] = [:]
    private var armed: BootInstant?
    private var isRunning = false

    /// Called whenever the deadline given to ``wake(at:)`` has come.
    public var onDeadline: () -> Void = {}

    /// A reactor that waits for nothing yet.
    public init() throws(SystemError) {
        epoll = OwnedDescriptor(adopting: try retrying("epoll_create1") { epoll_create1(CInt(EPOLL_CLOEXEC)) })
        // BOOTTIME goes on in sleep: what ran out meanwhile is due on resume.
        timer = OwnedDescriptor(
            adopting: try retrying("timerfd_create") {
                timerfd_create(CLOCK_BOOTTIME, CInt(TFD_CLOEXEC | TFD_NONBLOCK))
            })
        try watch(timer.rawValue, .read) { [unowned self] in
            var expirations: UInt64 = 0
            _ = read(timer.rawValue, &expirations, 8)
            armed = nil
            for (descriptor, end) in pauses where end <= .now { resume(descriptor) }
            if let deadline, deadline <= .now {
                self.deadline = nil
                onDeadline()
            }
            arm()
        }
    }

    /// Calls `handler` whenever the descriptor is ready; once more for another interest or handler.
    public func watch(
        _ descriptor: CInt, _ interest: Interest, _ handler: @escaping () -> Void
    ) throws(SystemError) {
        var event = epoll_event(events: interest.rawValue, data: epoll_data_t(fd: descriptor))
        let operation = handlers[descriptor] == nil ? EPOLL_CTL_ADD : EPOLL_CTL_MOD
        try retrying("epoll_ctl") { epoll_ctl(epoll.rawValue, operation, descriptor, &event) }
        handlers[descriptor] = handler
    }

    /// Ends that; before the descriptor is closed.
    public func forget(_ descriptor: CInt) {
        guard handlers.removeValue(forKey: descriptor) != nil else { return }
        pauses[descriptor] = nil
        var event = epoll_event()
        epoll_ctl(epoll.rawValue, EPOLL_CTL_DEL, descriptor, &event)
    }

    /// Calls nobody for a descriptor that is watched for reading until so long from now.
    public func pause(_ descriptor: CInt, for duration: Duration) {
        guard handlers[descriptor] != nil else { return }
        var event = epoll_event(events: 0, data: epoll_data_t(fd: descriptor))
        epoll_ctl(epoll.rawValue, EPOLL_CTL_MOD, descriptor, &event)
        pauses[descriptor] = .now + duration
        arm()
    }

    private func resume(_ descriptor: CInt) {
        var event = epoll_event(events: Interest.read.rawValue, data: epoll_data_t(fd: descriptor))
        let isDone = epoll_ctl(epoll.rawValue, EPOLL_CTL_MOD, descriptor, &event) == 0
        // Where the kernel had no memory for that, again in a second.
        pauses[descriptor] = isDone ? nil : .now + .seconds(1)
    }

    /// Sets the deadline, or none.
    public func wake(at instant: BootInstant?) {
        deadline = instant
        arm()
    }

    private func arm() {
        let instant = (pauses.values + [deadline].compactMap { $0 }).min()
        guard instant != armed else { return }
        armed = instant
        var value = itimerspec()
        if let instant {
            let nanoseconds = max(instant.nanoseconds, 1)
            value.it_value.tv_sec = Int(nanoseconds / 1_000_000_000)
            value.it_value.tv_nsec = Int(nanoseconds % 1_000_000_000)
        }
        timerfd_settime(timer.rawValue, CInt(TFD_TIMER_ABSTIME), &value, nil)
    }

    /// Serves until ``stop()``.
    public func run() throws(SystemError) {
        isRunning = true
        var events = [epoll_event](repeating: epoll_event(), count: 16)
        while isRunning {
            let count = try retrying("epoll_wait") { epoll_wait(epoll.rawValue, &events, CInt(events.count), -1) }
            for event in events.prefix(Int(count)) {
                handlers[event.data.fd]?()
            }
        }
    }

    /// Lets ``run()`` return.
    public func stop() {
        isRunning = false
    }
}
