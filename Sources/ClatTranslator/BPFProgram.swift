import CLibBpf
import CSteering
import ClatBase
import Glibc
import Synchronization

/// The embedded eBPF object, loaded into the kernel: its three programs and two maps.
struct BPFProgram: ~Copyable, Sendable {
    let fromHost: OwnedDescriptor
    let fromUplink: OwnedDescriptor
    let fromTUN: OwnedDescriptor
    /// An array of one map, which holds the `clat_config`.
    let configurations: OwnedDescriptor
    /// One `clat_counts` per possible processor.
    let counters: OwnedDescriptor
    private let processors: Int

    /// Loads the object; the kernel's verifier reads every program.
    init(image: [UInt8] = Self.image) throws(SteeringError) {
        // The kernel writes as many counters, so that a guess would not do.
        let processors = Int(try check(libbpf_num_possible_cpus(), "count the possible processors"))
        let object = try BPFObjectFile(image)
        let fromHost = try object.program("from_host")
        let fromUplink = try object.program("from_uplink")
        let fromTUN = try object.program("from_tun")
        let configurations = try object.map("clat_configs")
        let counters = try object.map("clat_counters")
        self.fromHost = fromHost
        self.fromUplink = fromUplink
        self.fromTUN = fromTUN
        self.configurations = configurations
        self.counters = counters
        self.processors = processors
    }

    /// The object file.
    static var image: [UInt8] { BPFObjectFile.image(BPFObject.hexadecimal) }

    /// Puts a configuration in the old one's stead. A program that runs meanwhile sees the one or the other, never
    /// half of each: the new one comes in a map of its own, and the kernel exchanges maps by one pointer.
    borrowing func configure(_ configuration: clat_config) throws(SteeringError) {
        var configuration = configuration
        var key: UInt32 = 0
        let created = bpf_map_create(
            BPF_MAP_TYPE_ARRAY, "clat_config", 4, UInt32(MemoryLayout<clat_config>.size), 1, nil)
        let map = try adopt(created, "create a configuration map")
        try check(bpf_map_update_elem(map.rawValue, &key, &configuration, 0), "write a configuration map")
        var value = map.rawValue
        try check(bpf_map_update_elem(configurations.rawValue, &key, &value, 0), "exchange the configuration map")
    }

    /// The sum over all processors.
    borrowing func counts() throws(SteeringError) -> clat_counts {
        var perProcessor = [clat_counts](repeating: clat_counts(), count: processors)
        var key: UInt32 = 0
        try check(bpf_map_lookup_elem(counters.rawValue, &key, &perProcessor), "read the counters")
        return perProcessor.reduce(into: clat_counts()) { $0.add($1) }
    }
}

extension clat_counts {
    /// All its fields are 64-bit numbers, so the sum needs none of their names.
    fileprivate mutating func add(_ other: clat_counts) {
        withUnsafeBytes(of: other) { other in
            withUnsafeMutableBytes(of: &self) { sum in
                for offset in stride(from: 0, to: sum.count, by: 8) {
                    let total =
                        sum.load(fromByteOffset: offset, as: UInt64.self)
                        &+ other.load(fromByteOffset: offset, as: UInt64.self)
                    sum.storeBytes(of: total, toByteOffset: offset, as: UInt64.self)
                }
            }
        }
    }
}

/// Sole owner of what libbpf keeps of an object file while and after it loads it.
struct BPFObjectFile: ~Copyable {
    private let pointer: OpaquePointer

    /// An object file, out of the hexadecimal digits the build wrote.
    static func image(_ hexadecimal: StaticString) -> [UInt8] {
        hexadecimal.withUTF8Buffer { digits in
            stride(from: 0, to: digits.count - 1, by: 2).map { value(of: digits[$0]) << 4 | value(of: digits[$0 + 1]) }
        }
    }

    private static func value(of digit: UInt8) -> UInt8 {
        digit <= UInt8(ascii: "9") ? digit - UInt8(ascii: "0") : digit - UInt8(ascii: "a") + 10
    }

    init(_ image: [UInt8]) throws(SteeringError) {
        let (opened, openLog) = BPFLog.collecting {
            image.withUnsafeBytes { bpf_object__open_mem($0.baseAddress, $0.count, nil) }
        }
        guard let opened else { throw SteeringError(.last("open the eBPF object"), log: openLog) }
        let (code, log) = BPFLog.collecting { bpf_object__load(opened) }
        guard code == 0 else {
            bpf_object__close(opened)
            throw SteeringError(SystemError(call: "load the eBPF programs", code: -code), log: log)
        }
        pointer = opened
    }

    deinit { bpf_object__close(pointer) }

    func program(_ name: String) throws(SteeringError) -> OwnedDescriptor {
        try duplicate(bpf_program__fd(bpf_object__find_program_by_name(pointer, name)), name)
    }

    func map(_ name: String) throws(SteeringError) -> OwnedDescriptor {
        try duplicate(bpf_map__fd(bpf_object__find_map_by_name(pointer, name)), name)
    }

    private func duplicate(_ descriptor: CInt, _ name: String) throws(SteeringError) -> OwnedDescriptor {
        try adopt(fcntl(descriptor, F_DUPFD_CLOEXEC, 3), "find \(name) in the eBPF object")
    }
}

/// What libbpf says while it works. It has one listener per process, so those who want to hear take turns.
enum BPFLog {
    private static let turn = Mutex(())
    private static let lines = Mutex<[String]>([])
    private static let listening: Void = {
        libbpf_set_print { level, format, arguments in
            // The verifier's log is one line to libbpf, and what matters stands at its end: any length will do.
            var text: UnsafeMutablePointer<CChar>?
            guard level != LIBBPF_DEBUG, let format, let arguments, vasprintf(&text, format, arguments) >= 0,
                let text
            else { return 0 }
            defer { free(text) }
            BPFLog.lines.withLock { $0 += String(cString: text).split(separator: "\n").map(String.init) }
            return 0
        }
    }()

    /// Runs the body and returns the lines libbpf wrote, the verifier's among them.
    static func collecting<Result>(_ body: () -> Result) -> (Result, [String]) {
        turn.withLock { _ in
            _ = listening
            lines.withLock { $0 = [] }
            let result = body()
            return (result, lines.withLock { $0 })
        }
    }
}
