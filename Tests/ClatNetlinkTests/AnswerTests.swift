import ClatBase
import Testing

@testable import ClatNetlink

@Suite("An answer")
struct AnswerTests {
    /// Takes datagrams for the request of sequence number 5 from port 9, and reads of each message type and first number.
    func take(_ datagrams: String...) throws -> (answer: Answer<String>, verdict: Verdict?) {
        var answer = Answer<String>(sequence: 5, port: 9)
        for (number, datagram) in datagrams.enumerated() {
            let bytes = try hex(datagram)
            let verdict = answer.take(bytes.span.bytes) { type, bytes, body throws(MalformedMessage) in
                "\(type) \(try bytes.load(UInt32.self, at: body))"
            }
            if let verdict {
                #expect(number == datagrams.count - 1)
                return (answer, verdict)
            }
        }
        return (answer, nil)
    }

    static let done = "1400 0000 0300 0200 05000000 09000000  00000000"

    @Test("ends with NLMSG_DONE, over as many datagrams as it takes")
    func dump() throws {
        let (answer, verdict) = try take(
            "1400 0000 1000 0200 05000000 09000000  01000000  1400 0000 1000 0200 05000000 09000000  02000000",
            "1400 0000 1000 0200 05000000 09000000  03000000", Self.done)
        #expect(answer.values == ["16 1", "16 2", "16 3"])
        #expect(verdict == Verdict(code: 0))
        #expect(answer.isConsistent)
    }

    @Test("goes on until its end has come")
    func unfinished() throws {
        #expect(try take("1400 0000 1000 0200 05000000 09000000  01000000").verdict == nil)
    }

    @Test("passes over what answers another request or another socket")
    func strangers() throws {
        let (answer, verdict) = try take(
            "1400 0000 0300 0200 04000000 09000000  00000000  1400 0000 1000 0200 05000000 08000000  02000000",
            "1400 0000 0200 0000 05000000 00000000  ffffffff", Self.done)
        #expect(answer.values == [])
        #expect(verdict == Verdict(code: 0))
    }

    @Test("leaves out and counts what cannot be read")
    func malformed() throws {
        let (answer, verdict) = try take(
            "1200 0000 1000 0200 05000000 09000000  0100 0000  1400 0000 1000 0200 05000000 09000000  02000000",
            "0500 0000 1000 0200 05000000 09000000", Self.done)
        #expect(answer.values == ["16 2"])
        #expect(answer.malformed == 2)
        #expect(verdict == Verdict(code: 0))
    }

    @Test("of a table that changed says so, whichever message tells", arguments: [0, 1, 2])
    func interrupted(_ which: Int) throws {
        let flags = (0...2).map { $0 == which ? "1200" : "0200" }
        let (answer, verdict) = try take(
            "1400 0000 1000 \(flags[0]) 05000000 09000000  01000000",
            "1400 0000 1000 \(flags[1]) 05000000 09000000  01000000",
            "1400 0000 0300 \(flags[2]) 05000000 09000000  00000000")
        #expect(!answer.isConsistent)
        #expect(verdict == Verdict(code: 0))
    }

    @Test(
        "ends with the errno and the kernel's words",
        arguments: [
            (
                "an ACK", "2400 0000 0200 0001 05000000 09000000  00000000 70000000 1000 0506 05000000 09000000",
                Verdict(code: 0)
            ),
            (
                "an errno alone, capped",
                "2400 0000 0200 0001 05000000 09000000  edffffff 70000000 1000 0506 05000000 09000000",
                Verdict(code: 19)
            ),
            (
                "words after a capped request",
                """
                3000 0000 0200 0003 05000000 09000000  a1ffffff 70000000 1000 0506 05000000 09000000
                0900 0100 6f68206e6f 00 0000
                """, Verdict(code: 95, message: "oh no")
            ),
            (
                "words after a whole request and another attribute",
                """
                3c00 0000 0200 0002 05000000 09000000  a1ffffff 1400 0000 1000 0506 05000000 09000000  07000000
                0800 0200 10000000  0900 0100 6f68206e6f 000000
                """, Verdict(code: 95, message: "oh no")
            ),
            (
                "words that are not announced",
                """
                3000 0000 0200 0001 05000000 09000000  a1ffffff 70000000 1000 0506 05000000 09000000
                0900 0100 6f68206e6f 000000
                """, Verdict(code: 95)
            ),
            (
                "words that go on beyond the message",
                """
                3000 0000 0200 0003 05000000 09000000  a1ffffff 70000000 1000 0506 05000000 09000000
                0d00 0100 6f68206e6f 000000
                """, Verdict(code: 95)
            ),
            (
                "a request whose length is absurd",
                "2400 0000 0200 0002 05000000 09000000  a1ffffff ffffffff 1000 0506 05000000 09000000",
                Verdict(code: 95)
            ),
            (
                "an errno and half a header", "1800 0000 0200 0002 05000000 09000000  a1ffffff 70000000",
                Verdict(code: 95)
            ),
            (
                "an errno and words at the end of a dump",
                "2000 0000 0300 0202 05000000 09000000  feffffff  0900 0100 6f68206e6f 000000",
                Verdict(code: 2, message: "oh no")
            ),
        ] as [(String, String, Verdict)])
    func verdicts(_ name: String, _ datagram: String, _ expected: Verdict) throws {
        #expect(try take(datagram).verdict == expected)
    }

    @Test("with random octets changed ends, or goes on, and never says more than one thing per message")
    func mutated() throws {
        let golden = try hex(
            """
            1400 0000 1000 0200 05000000 09000000  01000000
            3c00 0000 0200 0002 05000000 09000000  a1ffffff 1400 0000 1000 0506 05000000 09000000  07000000
            0800 0200 10000000  0900 0100 6f68206e6f 000000
            """)
        var random = SplitMix64(state: 46)
        var verdicts = 0
        for _ in 0..<5_000 {
            var bytes = golden
            for _ in 0...(random.next() % 3) {
                bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(truncatingIfNeeded: random.next())
            }
            var answer = Answer<String>(sequence: 5, port: 9)
            let verdict = answer.take(bytes.span.bytes) { type, bytes, body throws(MalformedMessage) in
                "\(type) \(try bytes.load(UInt32.self, at: body))"
            }
            if verdict != nil { verdicts += 1 }
            #expect(answer.values.count + answer.malformed <= bytes.count / 16)
        }
        #expect((500...4_500).contains(verdicts))
    }

    @Test("without an errno is malformed")
    func noErrno() throws {
        let (answer, verdict) = try take("1200 0000 0200 0000 05000000 09000000  0000 0000")
        #expect(verdict == nil)
        #expect(answer.malformed == 1)
    }
}

@Test("An error says what was asked, the system's sentence and the kernel's words")
func errorDescription() {
    #expect(
        NetlinkError(operation: "create ipvlan clat0 on link 2", code: 95, message: "Unknown device type").description
            == "create ipvlan clat0 on link 2: Operation not supported (Unknown device type)")
    #expect(NetlinkError(operation: "delete link 9", code: 19).description == "delete link 9: No such device")
}
