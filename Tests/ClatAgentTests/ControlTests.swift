import CLinux
import ClatBase
import ClatTranslator
import Glibc
import Synchronization
import Testing

@testable import ClatAgent

/// Knows one interface; a renewal is an event.
private final class FakeAgent: ControlTarget {
    weak var service: ControlService?
    let status = AgentStatus(
        version: "test", pid: 7, uptimeSeconds: 8,
        interfaces: [
            InterfaceStatus(
                interface: "eth0", state: .off, reason: ReasonStatus(code: "no-carrier", sentence: "cable"),
                sinceSeconds: 1, advertisements: 0, refusedAdvertisements: [:], resolvers: [],
                refusedAnswers: [:], counters: [:])
        ])

    func knows(_ interface: String) -> Bool { interface == "eth0" }
    func canSwitch(_ interface: String) -> Bool { ["eth0", "usb0"].contains(interface) }
    func reexec() -> String { "no such program" }
    func set(_ interface: String, enabled: Bool, lasting: Bool) throws(SystemError) {
        if lasting { throw SystemError(call: "write", code: EROFS) }
        service?.publish(.state, interface, enabled ? "enabled" : "disabled", reason: .disabled)
    }
    /// Any descriptor that can be told from others: the reading end of a pipe.
    func namespaceDescriptor(of interface: String) -> CInt? { pipeEnd }
    var pipeEnd: CInt?

    func renew(_ interface: String) -> Bool {
        guard interface == "eth0" else { return false }
        service?.publish(.state, interface, "renewed", reason: .noPREF64)
        return true
    }

    func setResolvers(_ servers: [IPv6Address], of interface: String) -> Bool {
        guard interface == "eth0" else { return false }
        let text = servers.map(\.description).joined(separator: " ")
        service?.publish(.state, interface, text, reason: .noPREF64)
        return true
    }
}

@Suite("The control socket", .serialized)
struct ControlTests {
    @Test("a place that somebody else has taken meanwhile is left to them; where somebody listens none is taken")
    func placeTaken() throws {
        let path = "/tmp/clat-agent-test-\(getpid())-\(UInt32.random(in: .min ... .max))"
        let target = FakeAgent()
        var first: ControlService? = try ControlService(reactor: Reactor(), path: path, target: target)
        #expect(throws: SystemError(call: "listen at \(path)", code: EADDRINUSE)) {
            _ = try ControlService(reactor: Reactor(), path: path, target: target)
        }
        #expect(unlink(path) == 0)
        var second: ControlService? = try ControlService(reactor: Reactor(), path: path, target: target)
        withExtendedLifetime(first) {}
        first = nil
        #expect(access(path, F_OK) == 0)
        withExtendedLifetime(second) {}
        second = nil
        #expect(access(path, F_OK) != 0)
    }

    /// Runs a server on a thread of its own while `body` runs, in a directory that goes afterwards.
    private func serving(descriptor: CInt? = nil, _ body: (_ directory: String) throws -> Void) throws {
        let directory = "/tmp/clat-agent-test-\(getpid())-\(UInt32.random(in: .min ... .max))"
        try RuntimeDirectory.prepare(directory)
        defer { rmdir(directory) }
        var ends: [CInt] = [-1, -1]
        try retrying("pipe") { pipe(&ends) }
        let (stop, go) = (ends[0], ends[1])
        let ready = Atomic(false)
        let thread = try ClatBase.Thread(name: "control") { () -> SystemError? in
            do throws(SystemError) {
                let reactor = try Reactor()
                let target = FakeAgent()
                target.pipeEnd = descriptor
                let service = try ControlService(
                    reactor: reactor, path: RuntimeDirectory.socketPath(directory), target: target)
                target.service = service
                try reactor.watch(stop, .read) { reactor.stop() }
                ready.store(true, ordering: .releasing)
                try reactor.run()
                withExtendedLifetime((service, target)) {}
                return nil
            } catch { return error }
        }
        while !ready.load(ordering: .acquiring), !thread.hasEnded() { usleep(1000) }
        let outcome = Result { try body(directory) }
        close(go)
        let problem = thread.join()
        close(stop)
        #expect(problem == nil)
        #expect(access(RuntimeDirectory.socketPath(directory), F_OK) != 0)
        try outcome.get()
    }

    private func connect(_ directory: String) throws -> OwnedDescriptor {
        let socket = OwnedDescriptor(adopting: Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0))
        try UnixAddress(path: RuntimeDirectory.socketPath(directory)).connect(socket.rawValue)
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(socket.rawValue, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        return socket
    }

    private func receive(_ socket: borrowing OwnedDescriptor) -> String? {
        var reply: [UInt8] = []
        var octet: UInt8 = 0
        while recv(socket.rawValue, &octet, 1, 0) == 1 {
            if octet == 0 { return String(decoding: reply, as: UTF8.self) }
            reply.append(octet)
        }
        return nil
    }

    @Test("the status arrives as it was sent")
    func status() throws {
        try serving { directory in
            let status = try ControlClient(runtimeDirectory: directory).status()
            #expect(status == FakeAgent().status)
        }
    }

    @Test("several calls in one packet, and one call in several, are answered in turn")
    func framing() throws {
        try serving { directory in
            let socket = try connect(directory)
            let call = "{\"method\":\"org.clatagent.Status\"}\0"
            let whole = Array((call + "{\"method\":\"org.clatagent.Nothing\",\"parameters\":{}}\0" + call).utf8)
            for part in [whole[..<5], whole[5..<70], whole[70...]] {
                part.withUnsafeBytes { _ = send(socket.rawValue, $0.baseAddress, $0.count, 0) }
                usleep(20_000)
            }
            #expect(receive(socket)?.contains("\"pid\":7") == true)
            #expect(
                receive(socket)
                    == "{\"error\":\"org.varlink.service.MethodNotFound\",\"parameters\":{\"method\":\"org.clatagent.Nothing\"}}"
            )
            #expect(receive(socket)?.contains("\"pid\":7") == true)
        }
    }

    @Test("what is no call ends the connection, and only that", arguments: ["nonsense\0", "{}\0", "[1,2]\0", "\0"])
    func malformed(text: String) throws {
        try serving { directory in
            let socket = try connect(directory)
            Array(text.utf8).withUnsafeBytes { _ = send(socket.rawValue, $0.baseAddress, $0.count, 0) }
            #expect(receive(socket) == nil)
            #expect(try ControlClient(runtimeDirectory: directory).status().pid == 7)
        }
    }

    @Test("a call without an end, and a client that never reads, are cut off")
    func greedy() throws {
        try serving { directory in
            let endless = try connect(directory)
            let junk = [UInt8](repeating: 0x20, count: 65536)
            for _ in 0..<4 { _ = send(endless.rawValue, junk, junk.count, CInt(MSG_NOSIGNAL | MSG_DONTWAIT)) }
            #expect(receive(endless) == nil)

            let deaf = try connect(directory)
            let calls = Array(String(repeating: "{\"method\":\"org.clatagent.Status\"}\0", count: 1000).utf8)
            var cut = false
            for _ in 0..<1000 where !cut {
                let count = send(deaf.rawValue, calls, calls.count, CInt(MSG_NOSIGNAL | MSG_DONTWAIT))
                cut = count < 0 && errno != EAGAIN
                // Its own buffers are full: the server has stopped reading, which costs it nothing.
                if count < 0 && errno == EAGAIN { break }
            }
            #expect(try ControlClient(runtimeDirectory: directory).status().pid == 7)
        }
    }

    @Test("many idle clients do not keep the next from an answer once they are gone")
    func crowd() throws {
        try serving { directory in
            var crowd: [CInt] = []
            for _ in 0..<ControlServer.maximumClients + 8 { crowd.append(try connect(directory).release()) }
            usleep(50_000)
            for descriptor in crowd { close(descriptor) }
            usleep(50_000)
            #expect(try ControlClient(runtimeDirectory: directory).status().pid == 7)
        }
    }

    @Test(
        "each call has the reply that varlink wants",
        arguments: [
            (#"{"method":"org.clatagent.Nothing"}"#, #""error":"org.varlink.service.MethodNotFound""#),
            (#"{"method":"org.clatagent.Nothing"}"#, #""method":"org.clatagent.Nothing""#),
            (#"{"method":"org.example.Ping"}"#, #""error":"org.varlink.service.InterfaceNotFound""#),
            (#"{"method":"Ping"}"#, #""error":"org.varlink.service.InterfaceNotFound""#),
            (#"{"method":"org.varlink.service.GetInfo"}"#, #""interfaces":["org.clatagent","org.varlink.service"]"#),
            (
                #"{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"org.clatagent"}}"#,
                "method Renew(interface: string, resolvers: ?[]string) -> ()"
            ),
            (
                #"{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"org.example"}}"#,
                #""error":"org.varlink.service.InterfaceNotFound","parameters":{"interface":"org.example"}"#
            ),
            (
                #"{"method":"org.varlink.service.GetInterfaceDescription"}"#,
                #""error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"interface"}"#
            ),
            (#"{"method":"org.clatagent.Renew","parameters":{"interface":7}}"#, "InvalidParameter"),
            (#"{"method":"org.clatagent.Renew","parameters":{"interface":"eth0"}}"#, #"{"parameters":{}}"#),
            (
                #"{"method":"org.clatagent.Renew","parameters":{"interface":"eth9"}}"#,
                #"{"error":"org.clatagent.UnknownInterface","parameters":{"interface":"eth9"}}"#
            ),
            (#"{"method":"org.clatagent.Disable","parameters":{"interface":"eth0"}}"#, #"{"parameters":{}}"#),
            (#"{"method":"org.clatagent.Enable","parameters":{"interface":"eth1"}}"#, "UnknownInterface"),
            (#"{"method":"org.clatagent.Enable","parameters":{"interface":"usb0"}}"#, #"{"parameters":{}}"#),
            (
                #"{"method":"org.clatagent.Renew","parameters":{"interface":"eth9","resolvers":["2001:db8::53"]}}"#,
                "UnknownInterface"
            ),
            (
                #"{"method":"org.clatagent.Enable","parameters":{"interface":"eth0","lasting":true}}"#,
                #"{"error":"org.clatagent.NotLasting","parameters":{"cause":"write: Read-only file system"}}"#
            ),
            (#"{"method":"org.clatagent.OpenNamespace","parameters":{"interface":"eth1"}}"#, "UnknownInterface"),
            (
                #"{"method":"org.clatagent.OpenNamespace","parameters":{"interface":"eth0"}}"#,
                #"{"error":"org.clatagent.NoNamespace","parameters":{"interface":"eth0"}}"#
            ),
            (
                #"{"method":"org.clatagent.Reexec"}"#,
                #"{"error":"org.clatagent.NotReexecuted","parameters":{"cause":"no such program"}}"#
            ),
            (#"{"method":"org.clatagent.Monitor"}"#, #"{"error":"org.varlink.service.ExpectedMore","parameters":{}}"#),
        ])
    func replies(call: String, reply: String) throws {
        try serving { directory in
            let socket = try connect(directory)
            write(call, to: socket)
            let got = receive(socket)
            #expect(got?.contains(reply) == true, "\(got ?? "nothing")")
        }
    }

    private func write(_ call: String, to socket: borrowing OwnedDescriptor) {
        Array((call + "\0").utf8).withUnsafeBytes { _ = send(socket.rawValue, $0.baseAddress, $0.count, 0) }
    }

    @Test("a call that wants no reply gets none")
    func oneway() throws {
        try serving { directory in
            let socket = try connect(directory)
            write(#"{"method":"org.clatagent.Status","oneway":true}"#, to: socket)
            write(#"{"method":"org.clatagent.Nothing"}"#, to: socket)
            #expect(receive(socket)?.contains("MethodNotFound") == true)
        }
    }

    @Test("a hook tells resolvers; what is no IPv6 address is left out")
    func resolvers() throws {
        try serving { directory in
            let client = ControlClient(runtimeDirectory: directory)
            var heard: [AgentEvent] = []
            try client.monitor { event in
                heard.append(event)
                let servers = ["2001:db8::53", "192.0.2.53", "fe80::1%eth0", "::1", "nonsense"]
                if heard.count == 1 { try? client.renew("eth0", resolvers: servers) }
                return heard.count < 3
            }
            #expect(heard.dropFirst().map(\.text) == ["2001:db8::53 fe80::1", "renewed"], "one call does both")
            #expect { try client.renew("eth9", resolvers: []) } throws: { "\($0)".contains("eth9") }
            let socket = try connect(directory)
            write(#"{"method":"org.clatagent.SetResolvers","parameters":{"interface":"eth0"}}"#, to: socket)
            #expect(receive(socket)?.contains("InvalidParameter") == true)
            write(
                #"{"method":"org.clatagent.SetResolvers","parameters":{"interface":"eth0","servers":["::2"]}}"#,
                to: socket)
            #expect(receive(socket) == #"{"parameters":{}}"#)
        }
    }

    @Test("a descriptor arrives as one of the same file, and a client that takes no descriptors does no harm")
    func descriptor() throws {
        var ends: [CInt] = [-1, -1]
        try retrying("pipe") { pipe(&ends) }
        let (reader, writer) = (ends[0], ends[1])
        defer { for end in ends { close(end) } }
        try serving(descriptor: reader) { directory in
            let client = ControlClient(runtimeDirectory: directory)
            let copy = try client.openNamespace("eth0")
            #expect(copy.rawValue != reader)
            _ = Glibc.write(writer, "x", 1)
            var octet: UInt8 = 0
            #expect(read(copy.rawValue, &octet, 1) == 1 && octet == UInt8(ascii: "x"))

            let plain = try connect(directory)
            write(#"{"method":"org.clatagent.OpenNamespace","parameters":{"interface":"eth0"}}"#, to: plain)
            #expect(receive(plain) == #"{"parameters":{}}"#)
            #expect(try client.status().pid == 7)
        }
    }

    @Test("who monitors hears the present state, then what happens")
    func monitor() throws {
        try serving { directory in
            let client = ControlClient(runtimeDirectory: directory)
            var heard: [AgentEvent] = []
            try client.monitor { event in
                heard.append(event)
                if heard.count == 1 { try? client.renew("eth0") }
                return heard.count < 2
            }
            #expect(heard.map(\.text) == ["cable", "renewed"])
            #expect(heard.map(\.code) == ["no-carrier", "no-pref64"])
            #expect(heard.allSatisfy { $0.interface == "eth0" && $0.kind == .state && $0.state == .off })
        }
    }

    @Test("who monitors and does not read is cut off, and the others go on")
    func deafMonitor() throws {
        try serving { directory in
            let client = ControlClient(runtimeDirectory: directory)
            let deaf = try connect(directory)
            write(#"{"method":"org.clatagent.Monitor","more":true}"#, to: deaf)
            // Kernel buffers and what may wait are full well before that many events.
            for _ in 0..<20_000 { try client.renew("eth0") }
            var got = 0
            while receive(deaf) != nil { got += 1 }
            #expect(got > 1 && got < 20_000)
            #expect(try client.status().pid == 7)
        }
    }

    @Test("without an agent the client says so, and what to do")
    func nobody() {
        #expect {
            _ = try ControlClient(runtimeDirectory: "/nonexistent").status()
        } throws: { error in
            "\(error)".contains("no clat-agent is running here") && "\(error)".contains("clat-agent run")
        }
    }
}

@Suite("What people read")
struct TextTests {
    @Test(
        "durations are short",
        arguments: [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (7260, "2 h 1 min"), (90000, "1 d 1 h")])
    func durations(seconds: Int, text: String) {
        #expect(StatusText.duration(seconds) == text)
    }

    @Test("a finding keeps its column, and its remedy stands below")
    func findings() {
        let finding = Finding.broken(
            "MTU", "packets of more than 1372 octets vanish on the path, and nobody says so", remedy: "set mtu = 1392")
        #expect(
            finding.lines == [
                "BROKEN  MTU: packets of more than 1372 octets vanish on the path, and nobody",
                "        says so", "        -> set mtu = 1392",
            ])
        #expect(Finding.good("route", "good").lines == ["  ok    route: good"])
        #expect(Finding.notice("route", "so so").lines == ["  note  route: so so"])
    }

    @Test("every reason has a code of its own and a sentence without an end of line")
    func reasons() {
        let reasons: [Reason] = [
            .running(.wellKnown), .starting(.addAddress), .notSelected, .excluded, .inner, .disabled,
            .unsuitable(kind: "gre"), .silentPointToPoint,
            .enslaved(to: "bridge"), .down, .noCarrier, .noAdvertisement, .noPREF64, .noPREF64InDNS, .resolversSilent,
            .noUsablePrefix(), .noRouter, .suspended, .pref64Lost, .nativeIPv4(via: nil, metric: 7),
            .otherCLAT(device: "clat"), .addressesTaken(), .duplicateAddress(tries: 3), .failed(.addAddress, "x"),
            .gone, .stopping,
        ]
        #expect(reasons.count == Reason.Code.allCases.count)
        #expect(Set(reasons.map(\.code)) == Set(Reason.Code.allCases.map(\.rawValue)))
        for reason in reasons {
            #expect(reason.sentence.contains("IPv4"))
            #expect(!reason.sentence.contains("\n") && !reason.sentence.hasSuffix("."))
        }
    }

    @Test("the schema and the manual know every code, and no other")
    func codes() throws {
        let root = #filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined()
        func words(_ path: String, from start: String, to end: String, _ pattern: Regex<(Substring, Substring)>)
            -> [String]
        {
            let text = readText("\(root)/\(path)")
            guard let begin = text.firstRange(of: start), let stop = text[begin.upperBound...].firstRange(of: end)
            else {
                return []
            }
            return text[begin.upperBound..<stop.lowerBound].matches(of: pattern).map { String($0.output.1) }
        }
        let codes = Reason.Code.allCases.map(\.rawValue).sorted()
        #expect(words("docs/status.schema.json", from: "\"code\": {", to: "]", /"([a-z0-9-]+)"(?!:)/).sorted() == codes)
        #expect(
            words("docs/man/clat-agent.8", from: ".Sh REASONS", to: ".Sh ", /\.It Li ([a-z0-9-]+)/).sorted() == codes)
    }
}
