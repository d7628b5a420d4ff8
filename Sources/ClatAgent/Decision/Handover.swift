import ClatBase
import ClatTranslator
import FoundationEssentials

/// What one process of the agent leaves to the next: of each uplink's CLAT that works, what stands and what is known of the
/// link. Descriptors of namespace, TUN and programs go beside it. Kept as JSON; times are of CLOCK_BOOTTIME.
struct Handover: Hashable, Sendable, Codable {
    /// The layout of what is below, and of all that it holds. One that changes gets another number; no other is read.
    static let layout = 3
    /// More octets than seven CLATs can take.
    static let maximumSize = 1 << 20

    var layout = Self.layout
    /// In the order of their interface indexes.
    var entries: [Entry]

    /// One uplink.
    struct Entry: Hashable, Sendable, Codable {
        /// The uplink's interface index.
        var index: Int
        /// Its name.
        var name: String
        /// How often it had lost its carrier: where it has since, the network may be another.
        var carrierLosses: Int
        /// Since when IPv4 is on, or suspended.
        var since: BootInstant
        /// How packets find their way.
        var steering: SteeringKind
        /// Why the CLAT's link is no ipvlan.
        var uplinkNote: String?
        /// What stands, but for the translator.
        var standing: Standing
        /// The translator's, that of new flows first.
        var mappings: [Mapping]
        /// The uplink's IPv6 MTU, octets.
        var ipv6MTU: Int
        /// What is known of the link.
        var knowledge: LinkKnowledge

        /// What the translator begins with. What the operator wants of it besides follows from the configuration.
        var translator: TranslatorConfiguration {
            var translator = TranslatorConfiguration(mappings: mappings, ipv6MTU: ipv6MTU)
            translator.ipv4MTU = standing.hostLinkMTU ?? translator.ipv4MTU
            translator.nextHop = standing.routing?.nextHop(to: mappings.map(\.pref64.prefix))
            return translator
        }
    }

    /// Why one is not used, in words that follow "it".
    struct Problem: Error, Hashable, CustomStringConvertible {
        var description: String
    }

    /// Of all uplinks whose CLAT works; `path` tells of an interface index how packets go there and why it has the link it has.
    init(_ machine: AgentMachine, _ path: (Int) -> (steering: SteeringKind, uplinkNote: String?)?) {
        entries = machine.uplinks.sorted { $0.key < $1.key }.compactMap { index, uplink in
            guard let link = uplink.uplink, link.isRunning, uplink.isWanted, uplink.inFlight == nil,
                let translator = uplink.standing.translator, let path = path(index),
                uplink.standing.route != nil || uplink.reason.state == .suspended
            else { return nil }
            return Entry(
                index: index, name: link.name, carrierLosses: link.carrierLosses, since: uplink.since,
                steering: path.steering, uplinkNote: path.uplinkNote, standing: uplink.standing,
                mappings: translator.mappings, ipv6MTU: translator.ipv6MTU, knowledge: uplink.knowledge)
        }
    }

    /// As octets.
    var encoded: [UInt8] { JSONLine.octets(self) }

    /// From octets that may be anything.
    init(decoding octets: [UInt8]) throws(Problem) {
        guard octets.count <= Self.maximumSize else { throw Problem(description: "is too large") }
        guard let head = try? JSONDecoder().decode(Head.self, from: Data(octets)) else {
            throw Problem(description: "cannot be read")
        }
        guard head.layout == Self.layout else {
            throw Problem(description: "has layout \(head.layout), and this agent reads \(Self.layout)")
        }
        do { self = try JSONDecoder().decode(Self.self, from: Data(octets)) } catch {
            throw Problem(description: "cannot be read")
        }
        for entry in entries {
            if let fault = entry.fault { throw Problem(description: "says of \(entry.name) what cannot be: \(fault)") }
        }
        guard Set(entries.map(\.index)).count == entries.count else {
            throw Problem(description: "names an interface twice")
        }
    }

    private struct Head: Codable {
        var layout: Int
    }
}

extension Handover.Entry {
    /// What no agent could have written, if there is something.
    fileprivate var fault: String? {
        let indexes = 1...Int(Int32.max)
        if !indexes.contains(index) || standing.hostLink.map(indexes.contains) != true { return "an interface index" }
        if !(1...TranslatorConfiguration.mappingLimit).contains(mappings.count) || standing.addresses.count > 64 {
            return "a number of addresses"
        }
        if Set(mappings.map(\.ipv4)).count != mappings.count { return "an address twice" }
        if !(1280...65535).contains(ipv6MTU) { return "an MTU" }
        if !standing.hasNamespace || standing.uplinkLink == nil { return "a CLAT without a link" }
        if !knowledge.isWithinCapacity { return "more than can be known" }
        return nil
    }
}

/// What this process took over of one uplink from the one before it, once the kernel was asked for what is there.
public struct Adoption: Hashable, Sendable {
    /// What is known of the link.
    var knowledge: LinkKnowledge
    /// What stands.
    var standing: Standing
    /// That IPv4 is on, or suspended.
    var reason: Reason
    /// Since when.
    var since: BootInstant
    /// What is not as it was left, in words; the reconciler mends it.
    var differences: [String]

    /// `found` is what the kernel says stands; throws where there is no mending that.
    init(_ entry: Handover.Entry, found: Standing) throws(Handover.Problem) {
        if let duplicate = found.addresses.first(where: { $0.value == .duplicate })?.key {
            throw Handover.Problem(description: "has an address that another station uses, \(duplicate)")
        }
        let left = entry.standing
        standing = found
        standing.translator = entry.translator
        standing.announced = left.announced.intersection(found.addresses.keys)
        if found.routing?.router == left.routing?.router {
            standing.routing?.hardwareAddress = left.routing?.hardwareAddress
        }
        knowledge = entry.knowledge
        reason = entry.mappings.first.flatMap { left.route == nil ? nil : .running($0.pref64) } ?? .suspended
        since = entry.since
        differences = left.addresses.keys.filter { found.addresses[$0] == nil }.sorted().map { "\($0) has gone" }
        differences += left.ipv4s.subtracting(found.ipv4s).sorted().map { "\($0) has gone" }
        if standing.routing != left.routing { differences.append("its IPv6 routes are others") }
        if left.route != found.route {
            differences.append(found.route == nil ? "the IPv4 route has gone" : "the IPv4 route is another")
        }
        if left.hostLinkMTU != found.hostLinkMTU { differences.append("the MTU is another") }
        if found.isModeStolen { differences.append("the ipvlan is in another mode") }
    }
}
