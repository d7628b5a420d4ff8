import CLibBpf
import ClatBase
import Glibc

@testable import ClatTranslator

func zeros(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }

/// An IPv6 packet, hop limit 64, with no checksum computed.
func ipv6(_ source: String, _ destination: String, _ next: UInt8, _ payload: [UInt8]) -> [UInt8] {
    guard let source = IPv6Address(source), let destination = IPv6Address(destination) else {
        preconditionFailure("bad table")
    }
    return [0x60, 0, 0, 0, UInt8(payload.count >> 8), UInt8(payload.count & 0xff), next, 64]
        + source.bytes + destination.bytes + payload
}

extension Steering.Devices {
    /// For programs that are run on bytes, where no packet goes anywhere.
    static var any: Steering.Devices {
        guard let host = HardwareAddress(bytes: [2, 0, 0, 0, 0, 1]),
            let peer = HardwareAddress(bytes: [2, 0, 0, 0, 0, 2])
        else { preconditionFailure("bad table") }
        return Steering.Devices(uplink: 1, host: 1, hostAddress: host, peerAddress: peer, tun: 1)
    }
}

/// What a tc program answers (linux/pkt_cls.h).
enum Verdict: UInt32 {
    case pass = 0
    case drop = 2
    case redirect = 7
}

extension OwnedDescriptor {
    /// Runs a loaded tc program on a frame (BPF_PROG_TEST_RUN); a redirection is answered, not carried out.
    borrowing func run(on frame: [UInt8], gsoSize: UInt32 = 0) throws -> (verdict: Verdict?, frame: [UInt8]) {
        var context = __sk_buff()
        context.gso_size = gsoSize
        context.gso_segs = gsoSize == 0 ? 0 : 2
        var output = zeros(frame.count + 64)
        let descriptor = rawValue
        var options = bpf_test_run_opts()
        let code = frame.withUnsafeBytes { input in
            output.withUnsafeMutableBytes { output in
                withUnsafeMutablePointer(to: &context) { context in
                    options.sz = MemoryLayout<bpf_test_run_opts>.size
                    options.data_in = input.baseAddress
                    options.data_size_in = UInt32(input.count)
                    options.data_out = output.baseAddress
                    options.data_size_out = UInt32(output.count)
                    options.ctx_in = UnsafeRawPointer(context)
                    options.ctx_size_in = UInt32(MemoryLayout<__sk_buff>.size)
                    options.repeat = 1
                    return bpf_prog_test_run_opts(descriptor, &options)
                }
            }
        }
        guard code == 0 else { throw SystemError(call: "bpf BPF_PROG_TEST_RUN", code: -code) }
        return (Verdict(rawValue: options.retval), Array(output.prefix(Int(options.data_size_out))))
    }
}
