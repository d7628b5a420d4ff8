import Foundation
import PackagePlugin

/// Compiles the eBPF programs with the toolchain's own clang and writes them into the target as Swift constants.
@main
struct EmbedBPF: BuildToolPlugin {
    /// Each source, and the enum that holds what becomes of it.
    private static let programs = ["clat.bpf.c": "BPFObject", "guard.bpf.c": "GuardObject"]
    private static let headers = ["address.h", "clat.h", "translate.h"]

    func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
        let folder = target.directoryURL.appending(path: "BPF")
        let script = folder.appending(path: "embed.sh")
        let headers = Self.headers.map { folder.appending(path: $0) }
        return Self.programs.sorted { $0.key < $1.key }.map { file, name in
            let source = folder.appending(path: file)
            let output = context.pluginWorkDirectoryURL.appending(path: "\(name).swift")
            return .buildCommand(
                displayName: "Compiling \(file)",
                executable: URL(filePath: "/bin/sh"),
                arguments: [script.path(), source.path(), name, output.path()],
                inputFiles: [source, script] + headers,
                outputFiles: [output])
        }
    }
}
