import CLinux
import ClatBase
import Glibc

/// Tells when the host has been asleep. Poll ``descriptor`` for reading, then ask ``hasResumed()``.
///
/// The kernel cancels timers of the wall clock that ask for it whenever that clock is set, and resuming sets it; by how much
/// CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC tells sleep from an operator with `date`.
struct ResumeWatch: ~Copyable {
    private let timer: OwnedDescriptor
    private var asleep: Duration

    /// Less is no sleep: the two clocks are read one after the other.
    private static let threshold: Duration = .milliseconds(500)

    var descriptor: CInt { timer.rawValue }

    init() throws(SystemError) {
        let timer = OwnedDescriptor(
            adopting: try retrying("timerfd_create") {
                timerfd_create(CLOCK_REALTIME, CInt(TFD_CLOEXEC | TFD_NONBLOCK))
            })
        try Self.arm(timer)
        self.timer = timer
        asleep = Self.timeAsleep()
    }

    /// Whether there was sleep since the last time.
    mutating func hasResumed() -> Bool {
        var expirations: UInt64 = 0
        _ = read(timer.rawValue, &expirations, 8)
        try? Self.arm(timer)
        let before = asleep
        asleep = Self.timeAsleep()
        return asleep - before > Self.threshold
    }

    /// The timer itself is for a day that does not come.
    private static func arm(_ timer: borrowing OwnedDescriptor) throws(SystemError) {
        var value = itimerspec()
        value.it_value.tv_sec = Int(Int32.max) * 4
        let fd = timer.rawValue
        try retrying("timerfd_settime") {
            timerfd_settime(fd, CInt(TFD_TIMER_ABSTIME) | CInt(TFD_TIMER_CANCEL_ON_SET), &value, nil)
        }
    }

    private static func timeAsleep() -> Duration {
        func read(_ clock: clockid_t) -> Duration {
            var time = timespec()
            clock_gettime(clock, &time)
            return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
        }
        let monotonic = read(CLOCK_MONOTONIC)
        return read(CLOCK_BOOTTIME) - monotonic
    }
}
