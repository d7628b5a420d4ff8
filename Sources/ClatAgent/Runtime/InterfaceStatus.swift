import ClatBase
import ClatTranslator

extension InterfaceStatus {
    /// What there is to tell of an uplink; nil once it has gone.
    init?(
        _ machine: UplinkMachine, device: String?, _ instance: Instance?, _ configuration: Configuration,
        now: BootInstant
    ) {
        guard let uplink = machine.uplink else { return nil }
        func seconds(until instant: BootInstant) -> Int { Int((instant - now) / .seconds(1)) }
        let mapping = machine.standing.translator?.mappings.first
        let entry = mapping == nil || machine.entry?.prefix == mapping?.pref64 ? machine.entry : nil
        let refresh: BootInstant? =
            switch entry?.source {
            case .router: machine.knowledge.nextRefresh
            case .resolver(let address):
                machine.knowledge.dns.resolvers.first { $0.address == address && machine.knowledge.dns.isWanted }?.due
            case .configuration, nil: nil
            }
        let address = mapping?.ipv6 ?? machine.standing.addresses.keys.min()
        let problems = machine.refused.map { ($0.key.rawValue, $0.value) }
        self.init(
            interface: uplink.name, state: machine.reason.state,
            reason: ReasonStatus(code: machine.reason.code, sentence: machine.sentence),
            sinceSeconds: -seconds(until: machine.since), ipv6OnlyCapable: machine.isIPv6OnlyCapable,
            linkKind: uplink.kind.isEmpty ? nil : uplink.kind,
            pref64: (mapping?.pref64 ?? entry?.prefix)?.description,
            pref64Source: entry?.source.word, pref64Router: entry?.router?.description,
            pref64Resolver: entry?.resolver?.description,
            pref64LifetimeSeconds: entry?.expires.map { seconds(until: $0) },
            pref64RefreshSeconds: refresh.map { max(0, seconds(until: $0)) },
            ipv4Address: (machine.standing.route?.source ?? machine.standing.ipv4s.min())?.description,
            ipv6Address: address?.description,
            ipv6AddressState: address.flatMap { machine.standing.addresses[$0]?.rawValue },
            device: device, mtu: machine.standing.route?.mtu,
            metric: machine.standing.route?.metric, uplinkKind: machine.standing.uplinkLink,
            uplinkNote: instance?.uplinkNote, datapath: instance?.datapath, path: machine.path.sentence,
            checkAddress: configuration.policy(for: uplink.name).checkAddress?.description,
            advertisements: machine.advertisements,
            refusedAdvertisements: Dictionary(uniqueKeysWithValues: problems),
            resolvers: machine.knowledge.dns.resolvers.map { ResolverStatus($0) },
            refusedAnswers: Dictionary(
                uniqueKeysWithValues: machine.refusedAnswers.map { ($0.key.rawValue, $0.value) }),
            counters: instance?.counters ?? [:], countersSeconds: instance?.countersStarted.map { -seconds(until: $0) })
    }
}
