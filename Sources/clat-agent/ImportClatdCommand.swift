import ArgumentParser
import ClatAgent
import ClatBase
import Glibc

struct ImportClatdCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import-clatd",
        abstract: "Make a configuration file of a clatd.conf, and say of each key what became of it.",
        discussion: """
            Writes to standard output and changes nothing.

            Example: clat-agent import-clatd > /etc/clat-agent/config.toml

            Exit status: 0 done; 66 the file cannot be read.
            """)

    @Argument(help: "The file.")
    var file = "/etc/clatd.conf"

    func run() throws {
        do throws(SystemError) {
            let source = try OwnedDescriptor(opening: file, O_RDONLY)
            var octets = [UInt8](repeating: 0, count: 1 << 20)
            let count = try retrying("read \(file)") { read(source.rawValue, &octets, octets.count) }
            print(ClatdImport.toml(String(decoding: octets[..<count], as: UTF8.self)), terminator: "")
        } catch {
            printError("clat-agent: \(error)")
            throw ExitCode(66)
        }
    }
}
