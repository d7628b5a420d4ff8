import ClatTranslator
import Glibc

@testable import ClatAgent

/// One parser under libFuzzer: whatever octets it is given, it must come back, within its limits.
struct Target: Sendable {
    let body: @Sendable ([UInt8]) -> Void

    init(_ body: @escaping @Sendable ([UInt8]) -> Void) { self.body = body }

    /// By the names that fuzz.sh and the files of seeds use, each with the octets of its longest input: as much as ever comes in
    /// one piece, and several times that where one comes after the other; of files less, as they are long by repetition only.
    static let all: [String: (target: Target, longest: Int)] = [
        "adoption": (adoption, 1 << 15),
        "advertisement": (advertisement, 4 * RouterAdvertisement.maximumSize),
        "clatd": (clatd, 1 << 12),
        "descriptors": (descriptors, 1 << 13),
        "dns": (dns, Int(UInt16.max)),
        "echo": (echo, Int(UInt16.max)),
        "link": (link, 4 * RouterAdvertisement.maximumSize),
        "netlink": (netlink, 1 << 16),
        "state": (state, 1 << 13),
        "toml": (toml, 1 << 14),
        "translator": (translator, 3 * TUNDevice.largestFrame),
        "varlink": (varlink, 4 * ControlServer.maximumCall),
    ]

    /// The one that runs, by FUZZ_TARGET.
    fileprivate static let chosen: (target: Target, longest: Int) = {
        let name = getenv("FUZZ_TARGET").map { String(cString: $0) } ?? ""
        guard let chosen = all[name] else {
            print("FUZZ_TARGET is one of: \(all.keys.sorted().joined(separator: " "))")
            exit(64)
        }
        return chosen
    }()
}

/// What libFuzzer calls before it reads its options; always 0.
@_cdecl("LLVMFuzzerInitialize")
public func begin(
    _ count: UnsafeMutablePointer<CInt>,
    _ words: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>
) -> CInt {
    print("Inputs of up to \(Target.chosen.longest) octets")
    let former = UnsafeBufferPointer(start: words.pointee, count: Int(count.pointee))
    let all = former + [strdup("-max_len=\(Target.chosen.longest)"), nil]
    // For as long as the process lives.
    let array = UnsafeMutableBufferPointer<UnsafeMutablePointer<CChar>?>.allocate(capacity: all.count)
    _ = array.initialize(from: all)
    guard let first = array.baseAddress else { return 0 }
    words.pointee = first
    count.pointee += 1
    return 0
}

/// One input, as libFuzzer gives it, whose `main` it is that runs; always 0.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    Target.chosen.target.body(Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
