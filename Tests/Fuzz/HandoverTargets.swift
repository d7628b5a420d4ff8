import ClatBase
import ClatTranslator
import Glibc

@testable import ClatAgent

// What a process before this one, or whoever has started this one, has left to it.

/// `name=value` as C has it, the caller's to free.
private func variable(_ name: String, _ value: some Sequence<UInt8>) -> UnsafeMutablePointer<CChar>? {
    strdup((Array("\(name)=".utf8) + value + [0]).map(CChar.init(bitPattern:)))
}

/// Takes all that was passed on; how many those were. All are closed then.
private func read(of range: Range<CInt>, isOurs: Bool) -> Int {
    let inherited = InheritedDescriptors()
    let found = inherited.names
    precondition(found.count <= (isOurs ? range.count : 0))
    let store = DescriptorStore(ServiceManager { _ in nil }, holding: found)
    precondition(DescriptorStore.isState(DescriptorStore.state(store.number)))
    for name in Set(found) {
        let isOne = found.count { $0 == name } == 1
        if let descriptor = inherited.take(name) {
            precondition(isOne && range.contains(descriptor.rawValue))
        } else {
            precondition(!isOne)
        }
    }
    return found.count
}

extension Target {
    /// An octet that says what the kernel has of what is told of, and the account as JSON: one that is read is taken over, and
    /// lived on from.
    static let adoption = Target { input in
        guard let choice = input.first, let handover = try? Handover(decoding: Array(input.dropFirst())) else { return }
        precondition((try? Handover(decoding: handover.encoded)) == handover)
        var machine = AgentMachine(configuration: Configuration(), secret: [1], ephemeralSecret: [2])
        var host = Host()
        var adoptions: [Int: Adoption] = [:]
        for entry in handover.entries {
            host.links[entry.index] = Uplink(
                index: entry.index, name: entry.name, medium: .ethernet, kind: "", isUp: true, isRunning: true,
                mtu: 1500,
                hardwareAddress: HardwareAddress(bytes: [2, 0, 0, 0, 0, 1]), master: nil)
            var found = choice & 3 == 0 ? Standing() : entry.standing
            found.hasNamespace = true
            if choice & 3 == 2 { (found.addresses, found.routing, found.route) = ([:], nil, nil) }
            adoptions[entry.index] = try? Adoption(entry, found: found)
        }
        var now = BootInstant(nanoseconds: 150_000_000_000)
        _ = machine.handle(.adopted(adoptions, host), now: now)
        for _ in 0..<8 {
            now = machine.nextDeadline(after: now) ?? now + .seconds(3600)
            _ = machine.handle(.timer, now: now)
        }
        for uplink in machine.uplinks.values { precondition(uplink.knowledge.isWithinCapacity) }
    }

    /// LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES, a line each, with eight descriptors open; `me` as the first is our own number.
    static let descriptors = Target { input in
        let lines = input.filter { $0 != 0 }
            .split(separator: UInt8(ascii: "\n"), maxSplits: 2, omittingEmptySubsequences: false)
        let own = Array("\(getpid())".utf8)
        let process = lines[0].elementsEqual("me".utf8) ? own : Array(lines[0])
        let names = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]
        // setenv(3) would keep a copy of every value there ever was.
        let variables = zip(names, [process[...]] + lines.dropFirst()).map { variable($0, $1) }
        for variable in variables { if let variable { putenv(variable) } }
        let range: Range<CInt> = 3..<11
        closefrom(range.lowerBound)
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        for number in range where number != null { dup2(null, number) }
        let found = read(of: range, isOurs: process == own)
        for name in names { precondition(getenv(name) == nil) }
        for variable in variables { free(variable) }
        precondition(range.count { fcntl($0, F_GETFD) >= 0 } == range.count - found)
    }
}
