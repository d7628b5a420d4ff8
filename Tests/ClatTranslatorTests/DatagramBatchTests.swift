import CLinux
import ClatBase
import Glibc
import Testing

@testable import ClatTranslator

/// What waits comes out as super-packets that, cut as the kernel cuts them, are what went in.
struct DatagramBatchTests {
    /// A sink whose frames can be read.
    struct Wire: ~Copyable {
        var sink: TUNSink
        private let near: OwnedDescriptor
        private let far: OwnedDescriptor

        init(batches: Bool = true) throws {
            var pair: [CInt] = [-1, -1]
            guard socketpair(AF_UNIX, CInt(SOCK_SEQPACKET.rawValue) | O_NONBLOCK, 0, &pair) == 0 else {
                throw SystemError(call: "socketpair", code: errno)
            }
            near = OwnedDescriptor(adopting: pair[0])
            far = OwnedDescriptor(adopting: pair[1])
            sink = TUNSink(descriptor: pair[0], batches: batches)
        }

        /// Sends one and returns what that has set free.
        mutating func send(_ frame: [UInt8]) -> [[UInt8]] {
            frame.withUnsafeBytes { sink.send(RawSpan(_unsafeBytes: $0)) }
            sink.finishFrame()
            return read()
        }

        mutating func flush() -> [[UInt8]] {
            sink.flush()
            return read()
        }

        private func read() -> [[UInt8]] {
            var frames: [[UInt8]] = []
            var buffer = zeros(70000)
            while case let count = Glibc.read(far.rawValue, &buffer, buffer.count), count > 0 {
                frames.append(Array(buffer.prefix(count)))
            }
            return frames
        }

        /// All that comes out of these, in order.
        static func crossed(_ frames: [[UInt8]]) throws -> [[UInt8]] {
            var wire = try Wire()
            var result: [[UInt8]] = []
            for frame in frames { result += wire.send(frame) }
            result += wire.flush()
            let faults = wire.sink.faults
            #expect(faults == 0)
            return result
        }
    }

    static func sum(_ octets: [UInt8]) -> UInt16 { octets.withUnsafeBytes { Checksum.sum(RawSpan(_unsafeBytes: $0)) } }

    /// How a datagram's checksum stands.
    enum State: CaseIterable { case complete, found, open, wrong }

    static func frame(
        ipv6: Bool, payload: [UInt8], port: Int = 53, hopLimit: UInt8 = 64, trafficClass: UInt8 = 0,
        state: State = .complete
    ) -> [UInt8] {
        let length = 8 + payload.count
        let addresses: [UInt8] =
            ipv6
            ? [0x20, 1, 0xd, 0xb8] + zeros(11) + [1] + [0x20, 1, 0xd, 0xb8] + zeros(11) + [2]
            : [198, 51, 100, 10, 192, 0, 0, 1]
        func word(_ value: Int) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xff)] }
        var header: [UInt8]
        if ipv6 {
            header = [0x60 | trafficClass >> 4, trafficClass << 4, 0, 0] + word(length) + [17, hopLimit] + addresses
        } else {
            header = [0x45, trafficClass] + word(20 + length) + [0, 7, 0x40, 0, hopLimit, 17, 0, 0] + addresses
            let sum = ~Self.sum(header)
            header.replaceSubrange(10..<12, with: word(Int(sum)))
        }
        var udp = word(4660) + word(port) + word(length) + [0, 0] + payload
        let whole = addresses + [0, 17] + word(length) + udp
        let pseudo = Self.sum(addresses + [0, 17] + word(length))
        var sum = ~Self.sum(whole)
        if sum == 0 { sum = 0xffff }
        var virtio = Virtio()
        switch state {
        case .complete: break
        case .found: virtio.flags = UInt8(VIRTIO_NET_HDR_F_DATA_VALID)
        case .open:
            virtio = Virtio(partialAt: UInt16(header.count), offset: 6)
            sum = pseudo
        case .wrong: sum = sum == 1 ? 2 : 1
        }
        udp.replaceSubrange(6..<8, with: word(Int(sum)))
        return virtio.bytes + header + udp
    }

    /// The datagrams of a frame as the wire would carry them: super-packets cut, open checksums computed; the IPv4
    /// identification and header checksum, which cutting changes, are left out.
    static func cut(_ frame: [UInt8]) -> [[UInt8]] {
        let virtio = Virtio(frame)
        let ip = frame[10] >> 4 == 4 ? 20 : 40
        let payload = Array(frame[(18 + ip)...])
        let size = virtio.gsoType == 5 ? Int(virtio.gsoSize) : payload.count
        return stride(from: 0, to: payload.count, by: size).map { start in
            let part = Array(payload[start..<min(start + size, payload.count)])
            var packet = Array(frame[10..<18 + ip]) + part
            let length = UInt16(8 + part.count)
            packet[ip + 4] = UInt8(length >> 8)
            packet[ip + 5] = UInt8(length & 0xff)
            let total = ip == 20 ? length + 20 : length
            packet[ip == 20 ? 2 : 4] = UInt8(total >> 8)
            packet[ip == 20 ? 3 : 5] = UInt8(total & 0xff)
            if ip == 20 { for offset in [4, 5, 10, 11] { packet[offset] = 0 } }
            if virtio.flags & 1 != 0 {
                (packet[ip + 6], packet[ip + 7]) = (0, 0)
                let pseudo =
                    Array(packet[(ip == 20 ? 12 : 8)..<ip]) + [0, 17, UInt8(length >> 8), UInt8(length & 0xff)]
                var sum = ~Self.sum(pseudo + packet[ip...])
                if sum == 0 { sum = 0xffff }
                packet[ip + 6] = UInt8(sum >> 8)
                packet[ip + 7] = UInt8(sum & 0xff)
            }
            return packet
        }
    }

    @Test("a kernel that never took a super-packet gets no more of them, one that refused this gets the next")
    func refused() throws {
        // What cannot be written to refuses with EINVAL, as a TUN does what it does not know.
        let refusing = OwnedDescriptor(adopting: try retrying("epoll_create1") { epoll_create1(CInt(EPOLL_CLOEXEC)) })
        let taking = try OwnedDescriptor(opening: "/dev/null", O_WRONLY)
        let descriptor = OwnedDescriptor(adopting: try retrying("dup") { dup(taking.rawValue) })
        func batch(_ sink: inout TUNSink) {
            for _ in 0..<2 {
                Self.frame(ipv6: true, payload: zeros(9)).withUnsafeBytes { sink.send(RawSpan(_unsafeBytes: $0)) }
            }
        }
        for isKindKnown in [false, true] {
            var sink = TUNSink(descriptor: descriptor.rawValue, batches: true)
            if isKindKnown {
                batch(&sink)
                sink.flush()
            }
            dup2(refusing.rawValue, descriptor.rawValue)
            batch(&sink)
            sink.flush()
            dup2(taking.rawValue, descriptor.rawValue)
            let faults = sink.faults
            #expect(faults == 2)
            batch(&sink)
            let isHolding = sink.isHolding
            #expect(isHolding == isKindKnown)
        }
    }

    @Test("datagrams of a flow become one super-packet", arguments: [false, true], State.allCases)
    func oneFlow(ipv6: Bool, state: State) throws {
        let frames = (0..<10).map {
            Self.frame(ipv6: ipv6, payload: zeros($0 == 9 ? 7 : 100) + [UInt8($0)], state: state)
        }
        let crossed = try Wire.crossed(frames)
        #expect(crossed.count == (state == .wrong ? 10 : 1))
        #expect(crossed.flatMap(Self.cut) == frames.flatMap(Self.cut))
        guard state != .wrong else { return }
        let virtio = Virtio(crossed[0])
        #expect(virtio.flags == 1 && virtio.gsoType == 5 && virtio.gsoSize == 101 && virtio.checksumOffset == 6)
        #expect(virtio.headerLength == (ipv6 ? 48 : 28) && virtio.checksumStart == (ipv6 ? 40 : 20))
        if !ipv6 { #expect(Self.sum(Array(crossed[0][10..<30])) == 0xffff) }
    }

    @Test("one that is alone, and what is no plain datagram, leaves as it came")
    func alone() throws {
        let single = Self.frame(ipv6: true, payload: [1, 2, 3])
        #expect(try Wire.crossed([single]) == [single])
        var cases: [[UInt8]] = []
        for ipv6 in [false, true] {
            let frame = Self.frame(ipv6: ipv6, payload: zeros(30))
            cases.append(frame + [0])  // octets past its end
            var other = frame
            other[ipv6 ? 16 : 19] = 6  // TCP
            cases.append(other)
            other = frame
            other[1] = 5  // a super-packet already
            other[4] = 10
            cases.append(other)
            other = frame
            other[10 + (ipv6 ? 40 : 20) + 5] += 1  // UDP's length
            cases.append(other)
            cases.append(Self.frame(ipv6: ipv6, payload: []))
        }
        var fragment = Self.frame(ipv6: false, payload: zeros(30))
        fragment[16] = 0x20
        cases.append(fragment)
        for frame in cases { #expect(try Wire.crossed([frame, frame]) == [frame, frame]) }
    }

    @Test("a batch ends with a shorter datagram, before a longer one, at 64, and where it is full")
    func limits() throws {
        func counts(_ sizes: [Int]) throws -> [Int] {
            try Wire.crossed(sizes.map { Self.frame(ipv6: false, payload: zeros($0)) }).map { Self.cut($0).count }
        }
        #expect(try counts([50, 50, 20, 20, 50]) == [3, 1, 1])
        #expect(try counts(Array(repeating: 9, count: 130)) == [64, 64, 2])
        #expect(try counts(Array(repeating: 1472, count: 60)) == [22, 22, 16])
        let room = DatagramBatch.capacity - 38
        #expect(try counts([room - 9000, 9000, 1]) == [2, 1])
        #expect(try counts([room - 9000, 9001, 1]) == [1, 2])
        #expect(try counts([room + 1, room + 1, 9, 9]) == [1, 1, 2])
        #expect(try counts([2000, 65535 - 28, 9]) == [1, 1, 1])
        // Where 16 bits end, and with any size: what the header says is what is there.
        for (size, number) in [(1394, 47), (1260, 52), (1040, 63), (8190, 8), (9, 64), (1472, 22)] {
            for frame in try Wire.crossed((0..<number).map { _ in Self.frame(ipv6: false, payload: zeros(size)) }) {
                #expect(Int(frame[12]) << 8 + Int(frame[13]) == frame.count - 10)
                #expect(Int(frame[34]) << 8 + Int(frame[35]) == frame.count - 30)
            }
        }
    }

    @Test("what differs in anything that counts is not joined", arguments: [false, true])
    func flows(ipv6: Bool) throws {
        let usual = Self.frame(ipv6: ipv6, payload: zeros(9))
        let others = [
            Self.frame(ipv6: ipv6, payload: zeros(9), port: 54),
            Self.frame(ipv6: ipv6, payload: zeros(9), hopLimit: 63),
            Self.frame(ipv6: ipv6, payload: zeros(9), trafficClass: 3),
        ]
        for other in others { #expect(try Wire.crossed([usual, other]) == [usual, other]) }
    }

    @Test(
        "flows that take turns have a super-packet each; those for which there is no batch do not wait",
        arguments: [false, true])
    func turns(ipv6: Bool) throws {
        var wire = try Wire()
        func frame(_ flow: Int, _ turn: Int) -> [UInt8] {
            Self.frame(ipv6: ipv6, payload: [UInt8(turn), UInt8(flow)], port: 1000 + flow)
        }
        for turn in 0..<10 {
            for flow in 0..<20 {
                let one = frame(flow, turn)
                #expect(wire.send(one) == (flow < 16 ? [] : [one]))
            }
        }
        let crossed = wire.flush()
        #expect(crossed.map { Self.cut($0) } == (0..<16).map { flow in (0..<10).flatMap { Self.cut(frame(flow, $0)) } })
    }

    @Test("nothing waits for more than 256 frames, whatever comes")
    func patience() throws {
        var wire = try Wire()
        let waiting = (0..<16).map { Self.frame(ipv6: false, payload: [1], port: 1000 + $0) }
        for frame in waiting { #expect(wire.send(frame) == []) }
        let other = Self.frame(ipv6: false, payload: [2], port: 2000)
        for _ in 17..<256 { #expect(wire.send(other) == [other]) }
        #expect(wire.send(other) == [other] + waiting)
        #expect(wire.flush() == [])
        // Also where nothing comes out of what is read.
        #expect(wire.send(other) == [])
        for _ in 1..<255 { wire.sink.finishFrame() }
        #expect(wire.flush() == [other])
        #expect(wire.send(other) == [])
        for _ in 1..<256 { wire.sink.finishFrame() }
        let isHolding = wire.sink.isHolding
        #expect(!isHolding)
    }

    @Test("flows with one key are told apart, and neither overtakes itself")
    func collision() throws {
        let there = Self.frame(ipv6: false, payload: [1], port: 4660)
        var back = there
        back.replaceSubrange(22..<30, with: there[26..<30] + there[22..<26])
        let keys = [there, back].map { frame in
            frame.withUnsafeBytes { DatagramBatch.flow(of: RawSpan(_unsafeBytes: $0))?.key }
        }
        #expect(keys[0] != nil && keys[0] == keys[1])
        let crossed = try Wire.crossed([there, there, back, back, there])
        #expect(crossed.map { Self.cut($0).count } == [2, 2, 1])
        #expect(crossed.flatMap(Self.cut) == [there, there, back, back, there].flatMap(Self.cut))
    }

    @Test("directions do not disturb each other, and neither waits when the other leaves")
    func directions() throws {
        var wire = try Wire()
        let (host, uplink) = (Self.frame(ipv6: false, payload: zeros(5)), Self.frame(ipv6: true, payload: zeros(5)))
        for frame in [host, uplink, host, uplink] { #expect(wire.send(frame) == []) }
        var isHolding = wire.sink.isHolding
        #expect(isHolding)
        let tcp = Virtio().bytes + [0x45] + zeros(39)
        let crossed = wire.send(tcp)
        isHolding = wire.sink.isHolding
        #expect(crossed.count == 3 && crossed[2] == tcp && !isHolding)
        #expect(crossed.dropLast().map { Self.cut($0).count } == [2, 2])
    }

    @Test("without super-packets of UDP nothing waits")
    func off() throws {
        var wire = try Wire(batches: false)
        let frame = Self.frame(ipv6: true, payload: [1])
        #expect(wire.send(frame) == [frame] && wire.send(frame) == [frame] && wire.flush() == [])
        wire = try Wire()
        #expect(wire.send(frame) == [])
        wire.sink.stopBatching()
        #expect(wire.flush() == [frame] && wire.send(frame) == [frame])
    }

    @Test("random histories: each flow's datagrams come out as they went in, in order", arguments: 0..<200)
    func random(seed: UInt64) throws {
        var random = SeededGenerator(state: seed)
        var frames: [[UInt8]] = []
        let flows = [1, 2, 16, 24][Int(seed % 4)]
        for _ in 0..<400 {
            let size = [1, 2, 64, 64, 64, 65, 1400, 1400, 1200][Int.random(in: 0..<9, using: &random)]
            let states: [State] = [.complete, .complete, .complete, .found, .open, .wrong]
            frames.append(
                Self.frame(
                    ipv6: Int.random(in: 0..<4, using: &random) == 0,
                    payload: (0..<size).map { _ in UInt8.random(in: 0...255, using: &random) },
                    port: Int.random(in: 1...flows, using: &random),
                    hopLimit: Int.random(in: 0..<20, using: &random) == 0 ? 63 : 64,
                    state: states[Int.random(in: 0..<6, using: &random)]))
        }
        let crossed = try Wire.crossed(frames)
        #expect(crossed.count < frames.count)
        // Version and destination port.
        func flow(_ frame: [UInt8]) -> [UInt8] {
            let version = frame[10] >> 4
            let port = version == 4 ? 32 : 52
            return [version] + frame[port..<port + 2]
        }
        let (before, after) = (Dictionary(grouping: frames, by: flow), Dictionary(grouping: crossed, by: flow))
        #expect(before.mapValues { $0.flatMap(Self.cut) } == after.mapValues { $0.flatMap(Self.cut) })
    }
}
