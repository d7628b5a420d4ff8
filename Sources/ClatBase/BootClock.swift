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

extension BootInstant: Codable {
    /// More than the longest lifetime of any protocol here (2^32 s) after any boot; sums with one still fit.
    private static let latest: Int64 = 4_500_000_000_000_000_000

    /// From nanoseconds that can be a moment.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        nanoseconds = try container.decode(Int64.self)
        guard (0...Self.latest).contains(nanoseconds) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "\(nanoseconds) ns is no moment")
        }
    }

    /// As nanoseconds.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(nanoseconds)
    }
}
