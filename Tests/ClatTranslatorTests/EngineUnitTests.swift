import ClatBase
import Glibc
import Testing

@testable import ClatTranslator

/// TUN, thread and loader each by itself.
@Suite(.enabled(if: geteuid() == 0, "needs root"))
struct EngineUnitTests {
    @Test("a TUN is up, holds the largest packet, and belongs to us alone")
    func tun() throws {
        let state = try inFreshNamespace {
            let tun = try TUNDevice(name: "tun", queueLength: 1234)
            // Since 6.2 the kernel offers all; before, all but UDP.
            #expect(tun.offloads.isSuperset(of: [.checksum, .tcp]))
            #expect(Int(tun.interfaceIndex) == Int(if_nametoindex("tun")))
            #expect(throws: SystemError.self) { _ = try TUNDevice(name: "tun") }
            return try EngineLab.command(["ip", "-d", "link", "show", "tun"])
                + EngineLab.command(["ip", "address", "show", "tun"])
        }
        for word in [",UP", "mtu 65535", "qlen 1234", "tun type tun", "vnet_hdr on"] {
            #expect(state.contains(word), "\(word) in \(state)")
        }
        #expect(!state.contains("inet6"))
    }

    @Test("a name too long is cut, one that is taken is an error that says so")
    func names() throws {
        let error = try inFreshNamespace { () -> SystemError? in
            let first = try TUNDevice(name: "a-name-of-twenty-two-x")
            #expect(if_nametoindex("a-name-of-twent") == first.interfaceIndex)
            do throws(SystemError) {
                _ = try TUNDevice(name: "a-name-of-twent")
                return nil
            } catch {
                return error
            }
        }
        #expect(error?.code == EBUSY && error?.call.contains("TUNSETIFF") == true)
    }

    @Test("the end of an engine ends its thread at once, idle or not yet begun, and takes the TUN along")
    func stop() throws {
        for wait in [0, 50_000] {
            let namesLeft = try inFreshNamespace {
                let engine = try TranslatorEngine(try TUNDevice(), configuration: .standard)
                usleep(useconds_t(wait))
                #expect(engine.end == nil)
                let start = BootInstant.now
                engine.stop()
                #expect(BootInstant.now - start < .seconds(2))
                return if_nametoindex("tun")
            }
            #expect(namesLeft == 0)
        }
    }

    @Test("a configuration that comes during a pause does not end it, nor the thread")
    func pause() throws {
        try inFreshNamespace {
            let engine = try TranslatorEngine(try TUNDevice(), configuration: .standard)
            let counters = engine.counters
            func refused() -> UInt64 { counters.snapshot().drops.values.reduce(0, +) }
            try EngineLab.command(["ip", "address", "add", "192.0.2.1/24", "dev", "tun"])
            engine.pause()
            engine.update(.standard)
            #expect(throws: EngineLab.Failure.self) {
                try EngineLab.command(["ping", "-n", "-c", "1", "-W", "1", "192.0.2.2"])
            }
            #expect(engine.end == nil)
            #expect(refused() == 0, "the packet waits")
            engine.resume()
            for _ in 0..<500 where refused() == 0 { usleep(10_000) }
            #expect(engine.end == nil)
            #expect(refused() == 1)
        }
    }

    @Test("where one filter cannot be attached none stays")
    func filters() throws {
        let filters = try inFreshNamespace {
            let tun = try TUNDevice()
            var devices = Steering.Devices.any
            devices.uplink = tun.interfaceIndex
            devices.tun = tun.interfaceIndex
            devices.host = 0x7fff_fff0
            do throws(SteeringError) {
                _ = try Steering(devices, configuration: .standard, kernelPath: true, attachment: .clsact)
                Issue.record("there is no such device")
            } catch {}
            return try EngineLab.command(["tc", "qdisc", "show", "dev", "tun"])
        }
        #expect(!filters.contains("clsact"), "\(filters)")
    }

    @Test("a machine that is full for the moment is told from one that refuses")
    func passing() {
        for code in [ENOMEM, EAGAIN, EMFILE, ENFILE, EINTR] {
            #expect(SteeringError(SystemError(call: "load", code: code)).isPassing)
        }
        for code in [EPERM, EINVAL, ENOSYS, ENODEV, E2BIG] {
            #expect(!SteeringError(SystemError(call: "load", code: code)).isPassing)
        }
    }

    @Test("the verifier's last lines are in the error")
    func verifierLog() throws {
        // Where a program should exit it copies a register to itself, and runs past its end.
        var image = BPFProgram.image
        let exit: [UInt8] = [0x95] + zeros(7)
        let exits = image.indices.filter { image[$0...].starts(with: exit) }
        #expect(!exits.isEmpty)
        for exit in exits { image[exit] = 0xbf }
        #expect {
            _ = try BPFProgram(image: image)
        } throws: { error in
            guard case .unsupported(_, let log)? = error as? SteeringError,
                let end = log.lastIndex(where: { $0.hasPrefix("processed ") }), log.count <= 12
            else { return false }
            return "\(error)".hasSuffix("; " + log[end - 1])
        }
    }

    static let refusals: [(CInt, [String], String)] = [
        (EPERM, ["a line"], "the kernel refuses eBPF to this process (load: Operation not permitted)"),
        (EACCES, [], "the kernel refuses eBPF to this process (load: Permission denied)"),
        (
            EACCES, ["R2 unbounded"],
            "this kernel lacks what the eBPF programs need (load: Permission denied); R2 unbounded"
        ),
        (ENOSYS, [], "this kernel lacks what the eBPF programs need (load: Function not implemented)"),
        (ENODEV, [], "load: No such device"),
    ]

    @Test("the kernel's refusals are told apart", arguments: refusals)
    func kinds(_ code: CInt, _ log: [String], _ sentence: String) {
        #expect("\(SteeringError(SystemError(call: "load", code: code), log: log))" == sentence)
    }
}

/// Runs a body on a thread in a network namespace that nobody else sees.
func inFreshNamespace<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) throws -> Value {
    try onDedicatedThread(name: "namespace") { () throws(any Error) in
        try retrying("unshare") { unshare(CLONE_NEWNET) }
        return try body()
    }
}
