public import ClatBase
public import ClatTranslator

extension PREF64 {
    /// Prefix lengths by the octet that ends the IPv4 address (RFC 6052 section 2.2).
    private static let lengthsByLastOctet = [7: 32, 9: 40, 10: 48, 11: 56, 12: 64, 15: 96]

    /// The NAT64 prefixes with which a DNS64 made these AAAA records of ipv4only.arpa, in their order, each once; empty
    /// where none of them was made by a DNS64.
    ///
    /// Where both well-known addresses occur, only a prefix that both give counts (RFC 7050 section 3).
    public static func discovered(in addresses: [IPv6Address]) -> [PREF64] {
        var prefixes: [PREF64] = []
        var seen: [PREF64: Set<IPv4Address>] = [:]
        for (prefix, ipv4) in addresses.compactMap(discovered) {
            if seen[prefix] == nil { prefixes.append(prefix) }
            seen[prefix, default: []].insert(ipv4)
        }
        let kinds = seen.values.reduce(Set()) { $0.union($1) }
        return prefixes.filter { seen[$0] == kinds }
    }

    /// A DNS64 leaves the suffix zero and the well-known addresses end in an octet that is not, so the last octet that is
    /// not zero gives the length. The search of RFC 7050 section 3, for a place where a well-known address occurs, would
    /// take 2001:db8:c000:aa::c000:ab for one of 2001:db8::/32; it serves where a DNS64 fills the suffix.
    private static func discovered(in address: IPv6Address) -> (prefix: PREF64, ipv4: IPv4Address)? {
        let end = address.bytes.lastIndex { $0 != 0 } ?? 0
        if let length = lengthsByLastOctet[end], let prefix = prefix(of: address, length: length),
            let ipv4 = IPv4Address.wellKnown.first(where: { $0 == prefix.extract(address) })
        {
            return (prefix, ipv4)
        }
        for ipv4 in IPv4Address.wellKnown {
            let fitting = lengthsByLastOctet.values.compactMap { prefix(of: address, length: $0) }
                .filter { $0.extract(address) == ipv4 }
            if fitting.count == 1 { return (fitting[0], ipv4) }
        }
        return nil
    }

    /// ::/n would take in loopback, IPv4-mapped and IPv4-compatible addresses.
    private static func prefix(of address: IPv6Address, length: Int) -> PREF64? {
        guard address.high != 0, let prefix = IPv6Prefix(address, length: length), prefix.address.high != 0 else {
            return nil
        }
        return PREF64(prefix)
    }
}
