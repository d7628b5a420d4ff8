import CSeccomp
import ClatBase
import Glibc
import Testing

@Suite struct SystemCallFilterTests {
    /// Lets a thread say its last words and nothing else; reads standard input only.
    private static let filter = SystemCallFilter(
        allowing: [
            SystemCallFilter.Rule(SYS_write, .oneOf(argument: 0, [1, STDERR_FILENO])),
            SystemCallFilter.Rule(SYS_read, .oneOf(argument: 0, [STDIN_FILENO])),
            SystemCallFilter.Rule(
                SYS_mmap, .none(argument: 2, PROT_EXEC), .all(argument: 3, MAP_ANONYMOUS | MAP_PRIVATE)),
            SystemCallFilter.Rule(SYS_exit_group),
        ], denying: [SYS_openat])

    private static func map(_ protection: CInt, _ flags: CInt) -> Bool {
        mmap(nil, 4096, protection, flags, -1, 0) != MAP_FAILED
    }

    @Test func whatIsAllowedGoesThroughAndWhatIsDeniedFails() async {
        await #expect(processExitsWith: .exitCode(7)) {
            try Self.filter.confineThread()
            let isMapped = Self.map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
            let isDenied = open("/dev/null", O_RDONLY) == -1 && errno == EACCES
            _exit(isMapped && isDenied ? 7 : 1)
        }
    }

    @Test func aCallThatNoRuleNamesEndsTheProcessWithASentence() async throws {
        let ended = try #require(
            await #expect(processExitsWith: .exitCode(SystemCallFilter.exitStatus), observing: [\.standardErrorContent])
            {
                try Self.filter.confineThread()
                _ = socket(AF_INET, CInt(SOCK_DGRAM.rawValue), 0)
                _exit(0)
            })
        let text = String(decoding: ended.standardErrorContent, as: UTF8.self)
        #expect(text.contains("made system call \(SYS_socket), which its filter forbids"))
        #expect(text.contains("please report it"))
    }

    @Test func anotherDescriptorEndsTheProcess() async {
        await #expect(processExitsWith: .exitCode(SystemCallFilter.exitStatus)) {
            try Self.filter.confineThread()
            var octet: UInt8 = 0
            _ = read(STDERR_FILENO, &octet, 1)
            _exit(0)
        }
    }

    @Test func memoryForCodeEndsTheProcess() async {
        await #expect(processExitsWith: .exitCode(SystemCallFilter.exitStatus)) {
            try Self.filter.confineThread()
            _ = Self.map(PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS)
            _exit(0)
        }
    }

    @Test func memoryThatShowsAFileEndsTheProcess() async {
        await #expect(processExitsWith: .exitCode(SystemCallFilter.exitStatus)) {
            try Self.filter.confineThread()
            _ = Self.map(PROT_READ, MAP_PRIVATE)
            _exit(0)
        }
    }

    @Test func onlyTheThreadThatAskedIsConfined() async {
        await #expect(processExitsWith: .exitCode(7)) {
            var ends: (reading: CInt, writing: CInt) = (-1, -1)
            withUnsafeMutableBytes(of: &ends) { _ = pipe2($0.assumingMemoryBound(to: CInt.self).baseAddress, 0) }
            let (reading, writing) = ends
            // It lives on, so that its end makes no call that the filter forbids.
            let thread = try ClatBase.Thread(name: "confined") {
                try? SystemCallFilter(
                    allowing: [SystemCallFilter.Rule(SYS_write), SystemCallFilter.Rule(SYS_ppoll)]
                ).confineThread()
                _ = write(writing, "1", 1)
                while true { ppoll(nil, 0, nil, nil) }
            }
            _ = thread
            var octet: UInt8 = 0
            _ = read(reading, &octet, 1)
            _exit(socket(AF_INET, CInt(SOCK_DGRAM.rawValue), 0) >= 0 ? 7 : 1)
        }
    }
}

@Suite struct PrivilegesTests {
    @Test func onlyWhatIsKeptStays() async {
        await #expect(processExitsWith: .exitCode(7)) {
            guard geteuid() == 0, try Privileges.missing(of: [.netAdmin, .netRaw]).isEmpty else { _exit(7) }
            try Privileges.keepOnly([.netRaw])
            let missing = try Privileges.missing(of: [.netAdmin, .netRaw, .sysAdmin])
            // What has gone is no more to be had, and what is there can be kept once more.
            try Privileges.keepOnly([.netAdmin, .netRaw])
            let regained = try Privileges.missing(of: [.netAdmin, .netRaw]) != [.netAdmin]
            _exit(missing == [.netAdmin, .sysAdmin] && !regained ? 7 : 1)
        }
    }

    @Test func capabilitiesHaveTheirNames() {
        #expect("\(Capability.netAdmin)" == "CAP_NET_ADMIN")
        #expect("\(Capability(63))" == "63")
    }
}
