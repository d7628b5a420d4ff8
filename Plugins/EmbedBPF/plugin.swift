import Foundation
import PackagePlugin

/// Compiles the eBPF program with the toolchain's own clang and writes it into the target as a Swift constant.
@main
struct EmbedBPF: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
        let folder = target.directoryURL.appending(path: "BPF")
        let output = context.pluginWorkDirectoryURL.appending(path: "BPFObject.swift")
        let sources = ["clat.bpf.c", "address.h", "clat.h", "translate.h"].map { folder.appending(path: $0) }
        let script = folder.appending(path: "embed.sh")
        return [
            .buildCommand(
                displayName: "Compiling the eBPF program",
                executable: URL(filePath: "/bin/sh"),
                arguments: [script.path(), sources[0].path(), output.path()],
                inputFiles: sources + [script],
                outputFiles: [output])
        ]
    }
}
