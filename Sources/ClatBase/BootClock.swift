import Glibc

/// A moment of CLOCK_BOOTTIME, which counts through sleep: a lifetime that ran out during suspend has run out.
public struct BootInstant: Hashable, Sendable, Comparable {
    /// Since boot.
    public var nanoseconds: Int64

    /// A moment that many nanoseconds after boot.
    public init(nanoseconds: Int64) {
        self.nanoseconds = nanoseconds
    }

    /// The present moment.
    public static var now: BootInstant {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return BootInstant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }

    /// Later by that much.
    public static func + (instant: BootInstant, duration: Duration) -> BootInstant {
        let (seconds, attoseconds) = duration.components
        return BootInstant(nanoseconds: instant.nanoseconds + seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
    }

    /// How much later the left one is.
    public static func - (left: BootInstant, right: BootInstant) -> Duration {
        .nanoseconds(left.nanoseconds - right.nanoseconds)
    }

    /// Orders by time.
    public static func < (left: BootInstant, right: BootInstant) -> Bool {
        left.nanoseconds < right.nanoseconds
    }
}
