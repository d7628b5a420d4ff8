import ClatBase

/// What others do to what stands.
extension UplinkMachine {
    /// Takes in what the kernel lists, after notices were lost: of what stands there is only what it lists.
    mutating func compare(with host: Host, now: BootInstant) {
        guard let index = standing.hostLink else { return }
        guard host.links[index]?.isUp == true else { return lostHostLink(isDown: host.links[index] != nil, now: now) }
        standing.ipv4s = standing.ipv4s.filter { host.has(.v4($0), on: index) }
        compare(with: host.defaultRoutes)
    }

    /// The same where only routes were listed.
    mutating func compare(with routes: Set<DefaultRoute>) {
        if !routes.contains(where: { $0.index == standing.hostLink && IPv4Route($0) == standing.route }) {
            standing.route = nil
        }
    }

    /// Takes in that somebody removed the host's device, or set it down.
    mutating func lostHostLink(isDown: Bool, now: BootInstant) {
        if isDown { standing.route = nil } else { standing.forget(.removeHostLink) }
        fail(.failed(.createHostLink, isDown ? "somebody set it down" : "somebody removed it"), now: now)
    }

    /// Takes in what mode the ipvlan is in. A thief that comes back at once is given way to for a while.
    mutating func absorb(modeStolen isStolen: Bool, now: BootInstant) {
        guard standing.uplinkLink == .ipvlan, isStolen != standing.isModeStolen else { return }
        standing.isModeStolen = isStolen
        guard isStolen else { return }
        modeThefts = (modeThefts + [now]).filter { $0 + Self.goodRun > now }
        if modeThefts.count > Self.theftLimit {
            modeThefts = []
            let text = "another program keeps setting the ipvlans of this interface to another mode than L2"
            fail(.failed(.restoreMode, text), now: now)
        }
    }
}
