public import ClatBase
public import ClatTranslator

/// Whether an interface has IPv4 through the CLAT.
public enum InstanceState: String, Sendable, Codable, CaseIterable {
    /// IPv4 goes through the CLAT.
    case on
    /// On its way.
    case starting
    /// It was on and can be again at once: what is missing is a way to the NAT64, or its prefix.
    case suspended
    /// Not wanted, or not possible now.
    case off
}

/// Why an interface's CLAT is in the state it is in: one code for programs, one sentence for people.
public enum Reason: Hashable, Sendable {
    /// All steps done.
    case running(PREF64)
    /// A step is under way.
    case starting(Step.Name)
    /// Not among the interfaces the operator named.
    case notSelected
    /// Among the interfaces the operator wants left alone.
    case excluded
    /// No interface is named, and this bridge has no port that leads out of the host.
    case inner
    /// `clat-agent disable` was called for it.
    case disabled
    /// The kind of link cannot carry a CLAT.
    case unsuitable(kind: String)
    /// A port of a bridge or bond, which is the uplink, or in a VRF; the kernel's word for what it belongs to.
    case enslaved(to: String)
    /// Administratively down.
    case down
    /// No carrier: cable out, or not associated.
    case noCarrier
    /// A point-to-point link without a router, as most VPNs are, that nobody has named.
    case silentPointToPoint
    /// No Router Advertisement came, so nothing is known of the network.
    case noAdvertisement
    /// Router Advertisements came, none with a PREF64.
    case noPREF64
    /// Nor does any resolver know one.
    case noPREF64InDNS
    /// Nor does any resolver give an answer that can be used.
    case resolversSilent
    /// A PREF64, but no prefix to make an address of, or none for that one, which the operator chose.
    case noUsablePrefix(for: IPv6Address? = nil)
    /// A default router for the PREF64 is missing.
    case noRouter
    /// It was on, and the last default router has gone; all but the host's route stays.
    case suspended
    /// It was on, and no router tells a PREF64 any more; all but the host's route stays while resolvers are asked.
    case pref64Lost
    /// The host has IPv4 of its own on this interface, by a default route of that metric through a router or onto the link.
    case nativeIPv4(via: IPAddress?, metric: Int)
    /// Another program runs a CLAT for this interface.
    case otherCLAT(device: String)
    /// 192.0.0.1 to 192.0.0.7 are all in use, or that address is, which the operator chose.
    case addressesTaken(IPv4Address? = nil)
    /// Every address tried is in use by another station.
    case duplicateAddress(tries: Int)
    /// A step failed; it is tried again.
    case failed(Step.Name, String)
    /// The interface has gone.
    case gone
    /// The agent is stopping.
    case stopping

    /// The words for programs; none is changed or goes.
    enum Code: String, CaseIterable {
        case running, starting, excluded, disabled, enslaved, down, stopping
        case notSelected = "not-selected"
        case inner = "no-outer-port"
        case unsuitable = "unsuitable-link"
        case noCarrier = "no-carrier"
        case silentPointToPoint = "point-to-point-silent"
        case noAdvertisement = "no-router-advertisement"
        case noPREF64 = "no-pref64"
        case noPREF64InDNS = "no-pref64-in-dns"
        case resolversSilent = "resolvers-silent"
        case noUsablePrefix = "no-usable-prefix"
        case noRouter = "no-router"
        case suspended = "suspended-no-router"
        case pref64Lost = "suspended-no-pref64"
        case nativeIPv4 = "native-ipv4"
        case otherCLAT = "other-clat"
        case addressesTaken = "ipv4-addresses-taken"
        case duplicateAddress = "address-duplicate"
        case failed = "step-failed"
        case gone = "interface-gone"
    }

    /// Stable, for programs.
    public var code: String { word.rawValue }

    private var word: Code {
        switch self {
        case .running: .running
        case .starting: .starting
        case .notSelected: .notSelected
        case .excluded: .excluded
        case .inner: .inner
        case .disabled: .disabled
        case .unsuitable: .unsuitable
        case .enslaved: .enslaved
        case .down: .down
        case .noCarrier: .noCarrier
        case .silentPointToPoint: .silentPointToPoint
        case .noAdvertisement: .noAdvertisement
        case .noPREF64: .noPREF64
        case .noPREF64InDNS: .noPREF64InDNS
        case .resolversSilent: .resolversSilent
        case .noUsablePrefix: .noUsablePrefix
        case .noRouter: .noRouter
        case .suspended: .suspended
        case .pref64Lost: .pref64Lost
        case .nativeIPv4: .nativeIPv4
        case .otherCLAT: .otherCLAT
        case .addressesTaken: .addressesTaken
        case .duplicateAddress: .duplicateAddress
        case .failed: .failed
        case .gone: .gone
        case .stopping: .stopping
        }
    }

    /// One sentence for people, with the cause and what would change it. Begins where `IFACE: ` ends.
    public var sentence: String {
        switch self {
        case .running(let prefix): "IPv4 works through the NAT64 at \(prefix)"
        case .starting(let step): "IPv4 is on its way: \(step.rawValue)"
        case .notSelected:
            "IPv4 is off because the agent is to serve other interfaces; name this one with --interface, or in config.toml"
        case .excluded: "IPv4 is off because config.toml excludes this interface; take it out of exclude"
        case .inner:
            "IPv4 is off because this bridge has no port that leads out of the host; should it be an uplink all the same, name it "
                + "with --interface, or in config.toml"
        case .disabled: "IPv4 is off because this interface was disabled; switch it on with: clat-agent enable"
        case .unsuitable(let kind):
            "IPv4 is off because this link\(kind.isEmpty ? "" : " (\(kind))") is neither Ethernet nor raw IP, and no other can carry "
                + "a CLAT; that of a tunnel belongs on the interface that the tunnel runs over"
        case .enslaved(to: "vrf"):
            "IPv4 is off because this interface is in a VRF, and the agent serves the main routing table only; take it out"
        case .enslaved(let kind):
            "IPv4 is off because this is a port of a \(kind.isEmpty ? "bridge or bond" : kind); the CLAT belongs on that"
        case .down: "IPv4 is off because the interface is down; bring it up"
        case .noCarrier: "IPv4 is off because the link has no carrier; plug in the cable or join the Wi-Fi network"
        case .silentPointToPoint:
            "IPv4 is off because no router has answered on this point-to-point link, as on most VPNs; if it leads to a NAT64, "
                + "set pref64 and ipv6-address for it in config.toml"
        case .noAdvertisement:
            "IPv4 is off because no router has answered on this link; an IPv6 network must send Router Advertisements"
        case .noPREF64:
            "IPv4 is off because no router on this link announces a NAT64 prefix (PREF64); ask the network's operator"
        case .noPREF64InDNS:
            "IPv4 is off because this network has no NAT64: no router announces a prefix (PREF64), and no resolver knows one "
                + "(ipv4only.arpa); ask the network's operator"
        case .resolversSilent:
            "IPv4 is off because no router on this link announces a NAT64 prefix (PREF64) and no resolver of the link gives an "
                + "answer that can be used; ask the network's operator"
        case .noUsablePrefix(let address?):
            "IPv4 is off because no router announces a prefix for \(address); choose another ipv6-address in config.toml, or none"
        case .noUsablePrefix:
            "IPv4 is off because no router announces a /64 for address autoconfiguration, so the CLAT can have no address"
        case .noRouter: "IPv4 is off because no router on this link offers a default route towards the NAT64"
        case .suspended: "IPv4 waits because the last default router on this link has gone; it goes on when one returns"
        case .pref64Lost:
            "IPv4 waits because no router announces a NAT64 prefix (PREF64) any more; the resolvers are being asked for one"
        case .nativeIPv4(let router, let metric):
            "the CLAT is off because this interface has native IPv4 (default route\(router.map { " via \($0)" } ?? ""), metric "
                + "\(metric)), which wins"
        case .otherCLAT(let device):
            "the CLAT is off because another program (NetworkManager, systemd-networkd, clatd) already provides IPv4 on "
                + "\(device); switch one of the two off"
        case .addressesTaken(let address?):
            "IPv4 is off because \(address) is in use on this host already; remove it there (ip -4 address), or choose another "
                + "ipv4-address in config.toml"
        case .addressesTaken:
            "IPv4 is off because 192.0.0.1 to 192.0.0.7 are all in use on this host; remove one of them (ip -4 address)"
        case .duplicateAddress(tries: 1):
            "IPv4 is off because another station, or this host, already uses the CLAT's IPv6 address; trying again later"
        case .duplicateAddress(let tries):
            "IPv4 is off because other stations already use the \(tries) addresses that were tried; trying again later"
        case .failed(let step, let text): "IPv4 is off because this failed: \(step.rawValue): \(text); trying again"
        case .gone: "IPv4 is off because the interface has gone"
        case .stopping: "IPv4 is off because the agent is stopping"
        }
    }

    /// Whether a DHCPv4 client may ask there to do without IPv4 (option 108, RFC 8925 section 3): a CLAT carries it, or
    /// nothing is known against it. nil is what the reason alone does not tell.
    var isIPv6OnlyCapable: Bool? {
        switch self {
        case .running, .suspended, .pref64Lost, .down, .noCarrier, .noAdvertisement, .silentPointToPoint: true
        case .starting, .noPREF64, .nativeIPv4: nil
        case .notSelected, .excluded, .inner, .disabled, .unsuitable, .enslaved, .noPREF64InDNS, .resolversSilent,
            .noUsablePrefix, .noRouter, .otherCLAT, .addressesTaken, .duplicateAddress, .failed, .gone, .stopping:
            false
        }
    }

    /// Codes of interfaces that the operator need not hear of where others are served.
    static let ofNoInterest: Set<String> = [
        "not-selected", "excluded", "no-outer-port", "unsuitable-link", "enslaved", "point-to-point-silent",
    ]

    /// The state that goes with the reason.
    public var state: InstanceState {
        switch self {
        case .running: .on
        case .starting: .starting
        case .suspended, .pref64Lost: .suspended
        default: .off
        }
    }
}
