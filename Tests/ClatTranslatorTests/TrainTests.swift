import ClatBase
import Testing

@testable import ClatTranslator

@Suite("Properties of random trains of fragments")
struct TrainTests {
    static let count = PropertyTests.count / 10

    /// A packet in pieces of random sizes and in random order, as its receiver must get it.
    private struct Train {
        var pieces: [[UInt8]]
        var whole: [UInt8]
        /// The payload of the largest piece.
        var largest: Int
    }

    @Test(
        "However a packet is cut and shuffled, its receiver gets it whole, in pieces of the right sizes",
        arguments: PropertyTests.seeds)
    func whole(seed: UInt64) {
        var random = Seeded(state: seed ^ 0xf00d)
        var bench = Bench()
        for round in 0..<Self.count {
            let mapping = random.pick(PropertyTests.mappings)
            var configuration = TranslatorConfiguration(mappings: [mapping], ipv6MTU: 1500)
            configuration.lowestIPv6MTU = Int.random(in: 1280...1500, using: &random)
            configuration.ipv4MTU = Int.random(in: 300...1500, using: &random)
            bench.translator.update(configuration)
            let outbound = random.chance(50)
            let train = Self.train(outbound, mapping, &random)
            var output: [[UInt8]] = []
            for piece in train.pieces {
                for frame in bench.frames(piece) {
                    if let fault = fault(frame) { return report(fault, seed, round, train) }
                    output.append(Array(frame.dropFirst(10)))
                }
            }
            let most =
                outbound
                ? min(configuration.lowestIPv6MTU, max(1280, train.largest + 48)) : configuration.ipv4MTU
            guard output.allSatisfy({ $0.count <= most }) else {
                return report("\(output.map(\.count)) of at most \(most) octets", seed, round, train)
            }
            guard let result = reassembled(output) else {
                return report("no packet: \(output.map(hex)) \(bench.drops)", seed, round, train)
            }
            guard result == train.whole else { return report("another: \(hex(result))", seed, round, train) }
        }
    }

    private static func train(_ outbound: Bool, _ mapping: Mapping, _ random: inout Seeded) -> Train {
        let data = random.bytes(
            random.chance(3)
                ? Int.random(in: 4000...65507, using: &random) : Int.random(in: 16...3000, using: &random))
        let remote = PropertyTests.remote(&random)
        let identification = Int(random.next() & 0xffff)
        var v4 = V4(
            source: outbound ? mapping.ipv4 : remote, destination: outbound ? remote : mapping.ipv4,
            identification: identification, ttl: outbound ? 64 : 63)
        var v6 = V6(
            source: outbound ? mapping.ipv6 : mapping.pref64.embed(remote),
            destination: outbound ? mapping.pref64.embed(remote) : mapping.ipv6, hopLimit: outbound ? 63 : 64)
        switch Int.random(in: 0..<4, using: &random) {
        case 0:
            let word = random.bytes(4)
            v4 = v4.icmp(8, 0, word, data)
            v6 = v6.icmp(128, 0, word, data)
        case 1:
            v4 = v4.with { $0.udp(data) }
            v6 = v6.with { $0.udp(data) }
        case 2 where outbound:
            v4 = v4.with { $0.udp(data) }
            put(0, 6, &v4.payload)
            v6 = v6.with { $0.udp(data) }
        default:
            (v4.number, v4.payload) = (132, data)
            (v6.next, v6.payload) = (132, data)
        }
        var pieces: [[UInt8]] = []
        var (start, largest) = (0, 0)
        let payload = outbound ? v4.payload : v6.payload
        while start < payload.count {
            let most = start == 0 ? max(8, (payload.count - 1) & ~7) : 1480
            let end = min(start + Int.random(in: 1...185, using: &random) * 8, payload.count, start + most)
            largest = max(largest, end - start)
            let range = start..<end
            pieces.append(
                outbound ? v4.piece(payload, range) : v6.piece(payload, range, identification: identification))
            start = end
        }
        pieces.shuffle(using: &random)
        return Train(pieces: pieces, whole: outbound ? v6.octets : v4.octets, largest: largest)
    }

    private func report(_ what: String, _ seed: UInt64, _ round: Int, _ train: Train) {
        Issue.record("\(what): seed \(seed), round \(round), fragments \(train.pieces.map(hex))")
    }
}
