import CLinux
import ClatBase
import Glibc
import Logging
import Testing

@testable import ClatAgent

@Suite("The journal of systemd")
struct JournalTests {
    /// A journal that is a socket of the test's own, and the datagrams that come.
    private func entries(of body: (Journal) -> Void) throws -> [[UInt8]] {
        let path = "/tmp/clat-agent-journal-\(getpid())-\(UInt32.random(in: .min ... .max))"
        let socket = try OwnedDescriptor(socket: AF_UNIX, .datagram, named: "a socket")
        try UnixAddress(path: path).bind(socket.rawValue)
        defer { unlink(path) }
        // What standard error would be: any file that JOURNAL_STREAM names.
        var status = stat()
        fstat(socket.rawValue, &status)
        body(
            try #require(
                Journal(path: path, stream: "\(status.st_dev):\(status.st_ino)", descriptor: socket.rawValue)))
        var got: [[UInt8]] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = recv(socket.rawValue, &buffer, buffer.count, 0)
            guard count > 0 else { return got }
            got.append(Array(buffer[..<count]))
        }
    }

    @Test("an entry has a field in each line, and says how long one of several lines is")
    func fields() throws {
        let got = try entries { journal in
            #expect(journal.write("one", priority: LOG_NOTICE, [("CLAT_INTERFACE", "eth0")]))
            #expect(journal.write("two\nlines", priority: LOG_ERR, []))
        }
        #expect(
            got == [
                Array("MESSAGE=one\nPRIORITY=5\nSYSLOG_IDENTIFIER=clat-agent\nCLAT_INTERFACE=eth0\n".utf8),
                Array("MESSAGE\n".utf8) + [9, 0, 0, 0, 0, 0, 0, 0]
                    + Array("two\nlines\nPRIORITY=3\nSYSLOG_IDENTIFIER=clat-agent\n".utf8),
            ])
    }

    @Test("what is about an interface says which, what kind of event it is, and the code of a reason")
    func events() throws {
        let got = try entries { journal in
            let log = Logger(label: "test") { _ in StandardErrorLog(level: .info, journal: journal) }
            log.log(.notice, "eth0", event: .state, code: "running", "IPv4 works")
            log.log(.debug, "eth0", event: .step, "not wanted")
            log.warning("about nothing")
        }
        let texts = got.map { String(decoding: $0, as: UTF8.self) }
        #expect(texts.count == 2)
        #expect(
            texts.first == """
                MESSAGE=eth0: IPv4 works
                PRIORITY=5
                SYSLOG_IDENTIFIER=clat-agent
                CLAT_CODE=running
                CLAT_EVENT=state
                CLAT_INTERFACE=eth0

                """)
        #expect(texts.last == "MESSAGE=about nothing\nPRIORITY=4\nSYSLOG_IDENTIFIER=clat-agent\n")
    }

    @Test("where standard error leads elsewhere, there is no journal", arguments: [nil, "", "1:2", "x"])
    func elsewhere(stream: String?) {
        #expect(Journal(stream: stream) == nil)
    }

    @Test("a journal that does not answer is no journal: the line goes to standard error")
    func deaf() throws {
        var status = stat()
        fstat(STDERR_FILENO, &status)
        let journal = Journal(path: "/nonexistent", stream: "\(status.st_dev):\(status.st_ino)")
        #expect(try #require(journal).write("x", priority: 5, []) == false)
    }
}
