// swift-tools-version: 6.2
import PackageDescription

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

/// Glibc shows setns, unshare and pipe2 only to those who ask for the GNU interfaces.
let gnu: [CSetting] = [.define("_GNU_SOURCE")]

let package = Package(
    name: "clat-agent",
    products: [.executable(name: "clat-agent", targets: ["clat-agent"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    ],
    targets: [
        .systemLibrary(name: "CLibMnl", pkgConfig: "libmnl", providers: [.apt(["libmnl-dev"])]),
        .systemLibrary(name: "CLibCap", pkgConfig: "libcap", providers: [.apt(["libcap-dev"])]),
        .systemLibrary(name: "CLibMd", pkgConfig: "libmd", providers: [.apt(["libmd-dev"])]),
        .systemLibrary(name: "CLibBpf", pkgConfig: "libbpf", providers: [.apt(["libbpf-dev"])]),
        .systemLibrary(name: "CAres", pkgConfig: "libcares", providers: [.apt(["libc-ares-dev"])]),
        // What the eBPF programs and their loader both know.
        .systemLibrary(name: "CSteering", path: "Sources/ClatTranslator/BPF"),
        .systemLibrary(name: "CLinux", providers: [.apt(["linux-libc-dev"])]),
        .systemLibrary(name: "CSeccomp", providers: [.apt(["linux-libc-dev"])]),
        .target(
            name: "ClatBase", dependencies: ["CLibCap", "CLinux", "CSeccomp"], cSettings: gnu, swiftSettings: settings),
        .target(
            name: "ClatNetlink", dependencies: ["ClatBase", "CLibMnl"], cSettings: gnu, swiftSettings: settings),
        .plugin(name: "EmbedBPF", capability: .buildTool()),
        .target(
            name: "ClatTranslator", dependencies: ["ClatBase", "CLibBpf", "CLinux", "CSeccomp", "CSteering"],
            exclude: ["BPF"],
            cSettings: gnu, swiftSettings: settings, plugins: ["EmbedBPF"]),
        .target(
            name: "ClatAgent",
            dependencies: [
                "CAres", "ClatBase", "ClatNetlink", "ClatTranslator", "CLibMd", "CLinux",
                .product(name: "Logging", package: "swift-log"),
            ],
            resources: [
                .embedInCode("Control/org.clatagent.varlink"), .embedInCode("Control/org.varlink.service.varlink"),
            ],
            cSettings: gnu, swiftSettings: settings),
        .executableTarget(
            name: "clat-agent",
            dependencies: [
                "ClatAgent", "ClatBase", "CLinux",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            cSettings: gnu, swiftSettings: settings),
        .testTarget(
            name: "ClatBaseTests", dependencies: ["ClatBase", "CSeccomp"], cSettings: gnu, swiftSettings: settings),
        .testTarget(
            name: "ClatNetlinkTests", dependencies: ["CLinux", "ClatBase", "ClatNetlink"], cSettings: gnu,
            swiftSettings: settings),
        .testTarget(
            name: "ClatTranslatorTests", dependencies: ["CLinux", "ClatBase", "ClatTranslator"], cSettings: gnu,
            swiftSettings: settings),
        .executableTarget(
            name: "translator-bench", dependencies: ["ClatBase", "ClatTranslator", "CLinux"], path: "Tests/Bench",
            exclude: [
                "aims.py", "bench.py", "contestants.py", "measurements.py", "plot.py", "report.py", "sweep.py",
                "test_bench.py", "test_report.py",
            ],
            cSettings: gnu, swiftSettings: settings),
        .testTarget(
            name: "ClatAgentTests", dependencies: ["CLinux", "ClatBase", "ClatNetlink", "ClatAgent"], cSettings: gnu,
            swiftSettings: settings),
    ],
    swiftLanguageModes: [.v6]
)

// Only fuzz.sh builds this: it cannot be linked without libFuzzer.
if Context.environment["CLAT_FUZZ"] != nil {
    package.targets += [
        .executableTarget(
            name: "fuzz", dependencies: ["ClatAgent", "ClatBase", "ClatNetlink", "ClatTranslator"],
            path: "Tests/Fuzz", exclude: ["fuzz.sh", "seeds"], cSettings: gnu, swiftSettings: settings)
    ]
}
