import CSteering
import ClatBase

extension clat_config {
    /// What the programs must know of that configuration, with the translator's own limits.
    init(_ devices: Steering.Devices, _ configuration: TranslatorConfiguration, kernelPath: Bool) {
        self.init()
        let known = configuration.pairs.map {
            clat_mapping($0, strict: configuration.strictWellKnownPrefix)
        }
        next_hop = clat_address(configuration.nextHop ?? .unspecified)
        mappings_count = UInt32(known.count)
        withUnsafeMutableBytes(of: &mappings) { mappings in
            known.withUnsafeBytes { mappings.copyBytes(from: $0) }
        }
        flags = kernelPath ? UInt32(CLAT_KERNEL_PATH) : 0
        uplink = devices.uplink
        host = devices.host
        tun = devices.tun
        let ipv6MTU = min(max(configuration.ipv6MTU, 1280), 0xffff)
        ipv6_mtu = UInt32(ipv6MTU)
        ipv4_mtu = UInt32(min(max(configuration.ipv4MTU, 68), 0xffff))
        lowest_ipv6_mtu = UInt32(min(max(configuration.lowestIPv6MTU, 1280), ipv6MTU))
        hop_decrement = configuration.hopLimitDecrement
        traffic_class_mask = configuration.copyTrafficClass ? .max : 0
        withUnsafeMutableBytes(of: &host_link) {
            $0.copyBytes(from: devices.peerAddress.bytes + devices.hostAddress.bytes)
        }
    }
}

extension clat_mapping {
    /// The same in the programs' form.
    fileprivate init(_ mapping: Mapping, strict: Bool) {
        self.init()
        ipv4 = mapping.ipv4.rawValue
        ipv6 = clat_address(mapping.ipv6)
        prefix = clat_address(mapping.pref64.prefix.address)
        length = UInt32(mapping.pref64.length)
        let ones = IPv6Prefix(IPv6Address(high: .max, low: .max), length: mapping.pref64.length)
        mask = clat_address(ones?.address ?? .unspecified)
        flags = strict && mapping.pref64 == .wellKnown ? UInt32(CLAT_PUBLIC_ONLY) : 0
    }
}

extension clat_address {
    fileprivate init(_ address: IPv6Address) {
        self.init(high: address.high, low: address.low)
    }
}
