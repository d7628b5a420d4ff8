import CLinux
import ClatBase
import Glibc
import Testing

@testable import ClatAgent

@Suite("The service manager")
struct ServiceManagerTests {
    /// That nobody else has.
    private static func name() -> String { "clat-agent-notify-\(getpid())-\(UInt32.random(in: .min ... .max))" }

    /// What a service manager listens on.
    private static func socket() -> OwnedDescriptor {
        OwnedDescriptor(adopting: Glibc.socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0))
    }

    @Test("hears what it asked for, by path and by abstract name", arguments: [true, false])
    func messages(isAbstract: Bool) throws {
        let name = "/tmp/" + Self.name()
        let socket = Self.socket()
        try (isAbstract ? UnixAddress(abstract: name) : UnixAddress(path: name)).bind(socket.rawValue)
        defer { unlink(name) }
        let manager = ServiceManager { $0 == "NOTIFY_SOCKET" ? (isAbstract ? "@" : "") + name : nil }
        func next() -> String {
            var octets = [UInt8](repeating: 0, count: 512)
            let count = recv(socket.rawValue, &octets, octets.count, CInt(MSG_DONTWAIT))
            return String(decoding: octets.prefix(max(0, count)), as: UTF8.self)
        }
        manager.ready()
        #expect(next() == "READY=1")
        manager.status("wlan0 on")
        #expect(next() == "STATUS=wlan0 on")
        manager.reloading()
        #expect(next().hasPrefix("RELOADING=1\nMONOTONIC_USEC="))
        manager.alive()
        #expect(next() == "WATCHDOG=1")
        manager.stopping()
        #expect(next() == "STOPPING=1")
        #expect(manager.drop("tun-7"))
        #expect(next() == "FDSTOREREMOVE=1\nFDNAME=tun-7")
    }

    @Test("keeps descriptors where it says so: new ones before the old go, knowledge alone once a second")
    func store() throws {
        let name = Self.name()
        let socket = Self.socket()
        try UnixAddress(abstract: name).bind(socket.rawValue)
        #expect(!ServiceManager { $0 == "NOTIFY_SOCKET" ? "@\(name)" : nil }.keepsDescriptors)
        let manager = ServiceManager { ["NOTIFY_SOCKET": "@\(name)", "FDSTORE": "64"][$0] }
        #expect(manager.keepsDescriptors)
        func heard() -> [String] {
            var lines: [String] = []
            while true {
                var octets = [UInt8](repeating: 0, count: 512)
                var descriptor: CInt = -1
                var ready = pollfd(fd: socket.rawValue, events: Int16(POLLIN), revents: 0)
                guard poll(&ready, 1, 0) > 0 else { return lines }
                let count = DescriptorPassing.receive(into: &octets, descriptor: &descriptor, from: socket.rawValue)
                var words = String(decoding: octets.prefix(max(0, count)), as: UTF8.self).split(separator: "\n")
                if descriptor >= 0 { close(descriptor) }
                if words.last == "FDPOLL=0", descriptor < 0 { words.append("without a descriptor") }
                lines.append("\(words[0] == "FDSTORE=1" ? "+" : "-")\(words[1].dropFirst(7))")
            }
        }
        var handover = try Handover(decoding: Array(HandoverTests.golden.utf8))
        // As many as wait in a socket that nobody reads (net.unix.max_dgram_qlen).
        let descriptors = Instance.Descriptors(
            namespace: 0, tun: 1, links: [2, 0], uplinkGuard: 2, relay: [1, 2, 0])
        var store = DescriptorStore(manager, holding: ["tun-9", "state-4"])
        func keep(_ isLast: Bool = false, at milliseconds: Int64) -> BootInstant? {
            store.keep(
                handover, { _ in descriptors }, isLast: isLast, now: BootInstant(nanoseconds: milliseconds * 1_000_000))
        }
        #expect(keep(at: 0) == nil)
        #expect(
            heard() == [
                "+netns-7", "+tun-7", "+tcx-uplink-7", "+tcx-tun-7", "+relay-tap-7",
                "+relay-in-7", "+relay-out-7", "+guard-7", "+state-5", "-state-4",
                "-tun-9",
            ])
        #expect(keep(at: 1) == nil)
        #expect(heard() == [])
        handover.entries[0].knowledge.refreshAsked = BootInstant(nanoseconds: 5)
        #expect(keep(at: 2) == BootInstant(nanoseconds: 1_000_000_000))
        #expect(heard() == [])
        #expect(keep(true, at: 3) == nil)
        #expect(heard() == ["+state-6", "-state-5"])
        handover.entries[0].standing.route = nil
        #expect(keep(at: 4) == nil)
        #expect(heard() == ["+state-7", "-state-6"])
        store.drop(uplink: 7)
        #expect(
            heard() == [
                "-guard-7", "-netns-7", "-relay-in-7", "-relay-out-7", "-relay-tap-7", "-tcx-tun-7",
                "-tcx-uplink-7",
                "-tun-7",
            ])
        handover.entries = []
        #expect(keep(at: 5) == nil)
        #expect(heard() == ["-state-7"])
    }

    @Test("where a new account is not to be had the old one stays, and it is tried again")
    func behind() throws {
        let name = Self.name()
        let socket = Self.socket()
        try UnixAddress(abstract: name).bind(socket.rawValue)
        let manager = ServiceManager { ["NOTIFY_SOCKET": "@\(name)", "FDSTORE": "64"][$0] }
        var handover = try Handover(decoding: Array(HandoverTests.golden.utf8))
        var descriptors = Instance.Descriptors(namespace: 0, tun: 1, links: [2, 0], uplinkGuard: nil, relay: [])
        var store = DescriptorStore(manager, holding: [])
        func keep(at seconds: Int64) -> BootInstant? {
            store.keep(handover, { _ in descriptors }, now: BootInstant(nanoseconds: seconds * 1_000_000_000))
        }
        func heard() -> [String] {
            var octets = [UInt8](repeating: 0, count: 4096), words: [String] = []
            while case let count = recv(socket.rawValue, &octets, octets.count, CInt(MSG_DONTWAIT)), count > 0 {
                words.append(String(decoding: octets.prefix(count), as: UTF8.self))
            }
            return words
        }
        #expect(keep(at: 0) == nil && !store.isBehind && store.number == 1)
        #expect(heard().count == 5)
        // One that cannot be sent, while all else could.
        handover.entries[0].standing.route = nil
        descriptors.uplinkGuard = -1
        #expect(keep(at: 5) == BootInstant(nanoseconds: 15_000_000_000))
        #expect(store.isBehind && store.number == 1)
        #expect(heard() == [])
        descriptors.uplinkGuard = 2
        #expect(keep(at: 6) == BootInstant(nanoseconds: 15_000_000_000), "not again at each event")
        #expect(heard() == [])
        #expect(keep(at: 15) == nil && !store.isBehind && store.number == 2)
        #expect(heard().map { $0.split(separator: "\n")[1] } == ["FDNAME=guard-7", "FDNAME=state-2", "FDNAME=state-1"])
    }

    @Test("the watchdog is told twice in its time, and only where it is ours")
    func watchdog() {
        func interval(_ environment: [String: String]) -> Duration? {
            ServiceManager { environment[$0] }.watchdogInterval
        }
        #expect(interval(["WATCHDOG_USEC": "60000000"]) == .seconds(30))
        #expect(interval(["WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "\(getpid())"]) == .seconds(30))
        #expect(interval(["WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"]) == nil)
        #expect(interval(["WATCHDOG_USEC": "soon"]) == nil)
        #expect(interval([:]) == nil)
    }

    @Test("where nobody listens, nothing happens")
    func nobody() {
        ServiceManager { _ in nil }.ready()
        ServiceManager { _ in "/nonexistent/notify" }.ready()
    }
}
