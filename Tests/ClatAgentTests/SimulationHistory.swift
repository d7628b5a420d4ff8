import ClatBase
import ClatTranslator

@testable import ClatAgent

/// One thing that happens in a random history. Plain values, so that a history can be cut down and run again.
enum Happening: Hashable, Sendable {
    case advertisement(
        uplink: Int, router: Int, pref64: Int?, pref64Lifetime: Int, prefixes: [Int], routerLifetime: Int)
    case link(Int, up: Bool, carrier: Bool, mtu: Int, hardware: Int)
    case linkGone(Int)
    case flap(Int)
    case enslaved(Int, Bool)
    case renamed(Int)
    case dormant(Int)
    case taken(last: Int, Bool)
    case nativeIPv4(uplink: Int, router: Int, Bool)
    case movedRoute(from: Int, to: Int)
    case otherCLAT(uplink: Int, Bool)
    case hostTakes(uplink: Int)
    case routeMetric(uplink: Int, Int)
    case removeRoute(uplink: Int)
    case removeAddress(uplink: Int)
    case removeDevice(uplink: Int)
    case clatLinkGone(uplink: Int)
    case modeStolen(uplink: Int)
    case unreachable(uplink: Int, router: Int)
    case failing(Set<Step.Name>)
    case dad(Verdict)
    case dadEnds(uplink: Int, duplicate: Bool)
    case translatorEnds(uplink: Int)
    case pass(milliseconds: Int)
    case settle
    case sleep(seconds: Int)
    case overrun(lost: Set<Loss>)
    case crash
    case restart(milliseconds: Int, lost: Set<Loss>)
    case renew(uplink: Int)
    case associated(uplink: Int)
    case resolver(Answer)
    case traffic(outbound: Int, inbound: Int)
    case echo(Reply)
    case configure(Wish)

    /// What resolvers answer from then on.
    enum Answer: Hashable, Sendable, CaseIterable { case prefix, otherPrefix, tiny, no, error, nothing }

    /// What comes of echo requests.
    enum Reply: Hashable, Sendable, CaseIterable { case reply, silence, refused }

    /// What is taken away while no agent runs, or none is told.
    enum Loss: Hashable, Sendable, CaseIterable { case address, ipv4, route, device, network }

    /// What DAD does with new addresses.
    enum Verdict: Hashable, Sendable, CaseIterable { case preferred, optimistic, silent, duplicate }

    /// What the operator wants.
    enum Wish: Hashable, Sendable, CaseIterable {
        case defaults, disabled, excluded, named, coexist, staticPREF64, noDNS, checked

        var configuration: Configuration {
            var configuration = Configuration()
            switch self {
            case .defaults: break
            case .disabled: configuration.disabled = ["eth2"]
            case .excluded: configuration.excluded = ["eth3"]
            case .named: configuration.interfaces = ["eth2", "eth4"]
            case .coexist: configuration.defaults.nativeIPv4 = .coexist
            case .staticPREF64: configuration.defaults.pref64 = .wellKnown
            case .noDNS: configuration.defaults.usesDNS = false
            case .checked: configuration.defaults.checkAddress = IPv4Address(198, 51, 100, 1)
            }
            return configuration
        }
    }

    /// Steps that can be made to fail.
    static let steps: [Step.Name] = [
        .createNamespace, .createUplinkLink, .createHostLink, .addAddress, .setRouting, .startTranslator,
        .updateTranslator, .addIPv4Address, .setIPv4Route, .removeIPv4Route, .removeIPv4Address, .stopTranslator,
        .removeHostLink, .removeUplinkLink, .removeAddress, .setHostLinkMTU, .restoreMode, .announce,
    ]

    static func random(_ random: inout SeededRandom) -> Happening {
        func number(_ range: ClosedRange<Int>) -> Int { .random(in: range, using: &random) }
        func chance(_ percent: Int) -> Bool { number(1...100) <= percent }
        func losses() -> Set<Loss> { Set(Loss.allCases.filter { _ in chance(30) }) }
        let uplink = number(2...4)
        switch number(0...131) {
        case 0..<36:
            return .advertisement(
                uplink: uplink, router: number(1...2), pref64: chance(85) ? number(1...2) : nil,
                pref64Lifetime: chance(15) ? 0 : [600, 1800, 65528][number(0...2)],
                prefixes: (1...3).filter { _ in chance(50) }.map { chance(20) ? -$0 : $0 },
                routerLifetime: chance(10) ? 0 : 1800)
        case 36..<46:
            return .link(
                uplink, up: chance(85), carrier: chance(80), mtu: [1280, 1400, 1500, 9000][number(0...3)],
                hardware: number(0...1))
        case 46..<48: return .linkGone(uplink)
        case 48..<53: return .taken(last: number(1...7), chance(40))
        case 53..<58: return .nativeIPv4(uplink: uplink, router: number(1...2), chance(40))
        case 58..<60: return .movedRoute(from: uplink, to: number(2...4))
        case 60..<62: return .routeMetric(uplink: uplink, number(100...102))
        case 62..<64: return .removeRoute(uplink: uplink)
        case 64..<66: return .removeAddress(uplink: uplink)
        case 66..<68: return .removeDevice(uplink: uplink)
        case 68..<73: return .failing(chance(50) ? [] : Set(steps.filter { _ in chance(15) }))
        case 73..<78: return .dad(Verdict.allCases[number(0...3)])
        case 78..<84: return .dadEnds(uplink: uplink, duplicate: chance(25))
        case 84..<86: return .translatorEnds(uplink: uplink)
        case 86..<97: return .pass(milliseconds: [10, 1000, 5000, 60_000, 700_000, 7_300_000][number(0...5)])
        case 97..<99: return .sleep(seconds: [1, 700, 30_000][number(0...2)])
        case 99..<101: return .overrun(lost: chance(30) ? [] : losses())
        case 101..<102: return .crash
        case 102..<103: return .renew(uplink: uplink)
        case 103..<105: return .associated(uplink: uplink)
        case 105..<107: return .resolver(Answer.allCases[number(0...5)])
        case 107..<110: return .settle
        case 110..<112: return .flap(uplink)
        case 112..<114: return .enslaved(uplink, chance(50))
        case 114..<115: return .renamed(uplink)
        case 115..<116: return .dormant(uplink)
        case 116..<119: return .otherCLAT(uplink: uplink, chance(50))
        case 119..<120: return .hostTakes(uplink: uplink)
        case 120..<121: return .clatLinkGone(uplink: uplink)
        case 121..<123: return .modeStolen(uplink: uplink)
        case 123..<124: return .unreachable(uplink: uplink, router: number(1...2))
        case 124..<125: return .traffic(outbound: number(0...100), inbound: chance(50) ? 0 : number(1...100))
        case 125..<126: return .echo(Reply.allCases[number(0...2)])
        case 126..<129: return .configure(Wish.allCases[number(0...7)])
        default:
            return .restart(milliseconds: [0, 0, 100, 700_000][number(0...3)], lost: chance(60) ? [] : losses())
        }
    }
}
