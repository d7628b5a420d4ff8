import Glibc

/// One parser under libFuzzer: whatever octets it is given, it must come back, within its limits.
struct Target: Sendable {
    let body: @Sendable ([UInt8]) -> Void

    init(_ body: @escaping @Sendable ([UInt8]) -> Void) { self.body = body }

    /// By the names that fuzz.sh and the folders of seeds use.
    static let all: [String: Target] = [
        "advertisement": advertisement, "clatd": clatd, "dns": dns, "echo": echo, "link": link, "netlink": netlink,
        "state": state,
        "toml": toml, "translator": translator, "varlink": varlink,
    ]

    /// The one that runs, by FUZZ_TARGET.
    fileprivate static let chosen: Target = {
        let name = getenv("FUZZ_TARGET").map { String(cString: $0) } ?? ""
        guard let target = all[name] else {
            print("FUZZ_TARGET is one of: \(all.keys.sorted().joined(separator: " "))")
            exit(64)
        }
        return target
    }()
}

/// One input, as libFuzzer gives it, whose `main` it is that runs; always 0.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    Target.chosen.body(Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
