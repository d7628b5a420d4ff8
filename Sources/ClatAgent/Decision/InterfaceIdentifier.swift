import CLibMd
import ClatBase

/// Stable interface identifiers that tell nothing across networks (RFC 7217 section 5).
enum InterfaceIdentifier {
    /// RID = F(Prefix, Net_Iface, Network_ID, DAD_Counter, secret_key), F being SHA-256; its first 64 bits, octet 8
    /// on top.
    ///
    /// The word `clat` stands for the network id, so that the result differs from the host's own stable address of
    /// the prefix.
    static func make(prefix: IPv6Prefix, interface: String, dadCounter: Int, secret: [UInt8]) -> UInt64 {
        var identifier: UInt64
        var counter = UInt32(truncatingIfNeeded: dadCounter)
        repeat {
            let input =
                prefix.address.bytes + [UInt8(prefix.length)] + Array(interface.utf8) + [0] + Array("clat".utf8)
                + withUnsafeBytes(of: counter.bigEndian, Array.init) + secret
            identifier = sha256(input).prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
            counter &+= 1 << 16
        } while isReserved(identifier)
        return identifier
    }

    /// A locally administered unicast Ethernet address, the same after every start: neighbours remember it for a while.
    static func hardwareAddress(interface: String, secret: [UInt8]) -> HardwareAddress {
        let hash = sha256(Array("clat macvlan".utf8) + [0] + Array(interface.utf8) + [0] + secret)
        let number = hash.prefix(6).reduce(0) { $0 << 8 | UInt64($1) }
        return HardwareAddress(rawValue: number & ~0x0300_0000_0000 | 0x0200_0000_0000)
    }

    /// Subnet-router anycast, the IANA block of EUI-64 form, and reserved subnet anycast (RFC 5453 section 3).
    static func isReserved(_ identifier: UInt64) -> Bool {
        identifier == 0
            || (0x0200_5eff_fe00_0000...0x0200_5eff_fe00_5213).contains(identifier)
            || (0xfdff_ffff_ffff_ff80...0xfdff_ffff_ffff_ffff).contains(identifier)
    }

    private static func sha256(_ input: [UInt8]) -> [UInt8] {
        var context = SHA2_CTX()
        SHA256Init(&context)
        SHA256Update(&context, input, input.count)
        var digest = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
        SHA256Final(&digest, &context)
        return digest
    }
}
