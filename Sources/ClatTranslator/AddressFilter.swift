import CLinux
import ClatBase
import Glibc

/// A classic BPF program (linux/filter.h) that takes IPv6 packets with one of a few addresses at one place, whole, and
/// nothing else. The kernel runs it before a packet costs anything.
struct AddressFilter {
    /// Which address of the header (RFC 8200 section 3).
    enum Place: UInt32 {
        /// Octets 8 to 23.
        case source = 8
        /// Octets 24 to 39.
        case destination = 24
    }

    private var instructions: [sock_filter] = []

    /// - Parameters:
    ///   - addresses: none takes nothing.
    ///   - linkHeader: octets of the link-layer header that the program sees; an Ethernet one must be of IPv6.
    ///   - received: takes only what was sent to this station, of a packet socket that hears all that passes.
    init(_ addresses: [IPv6Address], at place: Place, linkHeader: Int, received: Bool = false) {
        if linkHeader > 0 {
            load(BPF_H, at: UInt32(linkHeader - 2))
            refuse(unless: UInt32(ETH_P_IPV6))
        }
        if received {
            load(BPF_B, at: UInt32(bitPattern: SKF_AD_OFF + SKF_AD_PKTTYPE))
            refuse(unless: UInt32(PACKET_HOST))
        }
        for address in addresses {
            let words = [address.high, address.low].flatMap { [UInt32($0 >> 32), UInt32(truncatingIfNeeded: $0)] }
            for (number, word) in words.enumerated() {
                load(BPF_W, at: UInt32(linkHeader) + place.rawValue + UInt32(4 * number))
                // Over the other words' two instructions each, and over the verdict.
                add(BPF_JMP | BPF_JEQ | BPF_K, word, 0, UInt8(2 * (words.count - 1 - number) + 1))
            }
            add(BPF_RET | BPF_K, .max)
        }
        add(BPF_RET | BPF_K, 0)
    }

    /// Calls with the program as system calls want it.
    func withProgram(_ body: (UnsafeMutablePointer<sock_fprog>) throws(SystemError) -> Void) throws(SystemError) {
        var instructions = instructions
        try instructions.withUnsafeMutableBufferPointer { instructions throws(SystemError) in
            var program = sock_fprog(len: UInt16(instructions.count), filter: instructions.baseAddress)
            try body(&program)
        }
    }

    private mutating func load(_ size: CInt, at offset: UInt32) { add(BPF_LD | size | BPF_ABS, offset) }

    private mutating func refuse(unless value: UInt32) {
        add(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0)
        add(BPF_RET | BPF_K, 0)
    }

    private mutating func add(_ code: CInt, _ value: UInt32, _ ifTrue: UInt8 = 0, _ ifFalse: UInt8 = 0) {
        instructions.append(sock_filter(code: UInt16(code), jt: ifTrue, jf: ifFalse, k: value))
    }
}
