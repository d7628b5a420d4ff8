import ClatBase

/// When the guard of an uplink goes, which keeps it clean of the CLAT's IPv4 addresses and comes with the CLAT's link. Where a
/// process before this one left a guard and no CLAT, it goes as well.
struct GuardTimer: Hashable, Sendable {
    private var isOver = false
    /// When it goes.
    private(set) var due: BootInstant?

    /// For how long it outlasts the CLAT: packets may wait for ARP while native IPv4 takes over, three probes a second apart.
    static let linger: Duration = .seconds(5)

    /// Whether it is to go now; said once. At once where the CLAT gives way to another program's, which translates behind the
    /// guard and has such addresses too, or where none is wanted.
    mutating func takeRelease(stands: Bool, reason: Reason, now: BootInstant) -> Bool {
        if stands { (isOver, due) = (false, nil) }
        guard !stands, !isOver else { return false }
        let end =
            switch reason {
            case .otherCLAT, .disabled, .notSelected, .excluded, .gone: now
            default: due ?? now + Self.linger
            }
        isOver = end <= now
        due = isOver ? nil : end
        return isOver
    }
}
