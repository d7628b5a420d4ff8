import ArgumentParser
import ClatAgent
import ClatBase

struct ImportClatdCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import-clatd",
        abstract: "Make a configuration file of a clatd.conf, and say of each key what became of it.",
        discussion: """
            Writes to standard output and changes nothing.

            Example: clat-agent import-clatd > /etc/clat-agent/config.toml

            Exit status: 0 done; 66 the file cannot be read.
            """)

    @Argument(help: "The file.", completion: .file())
    var file = ClatdCleanup.standardConfiguration

    func run() throws {
        do throws(SystemError) {
            print(ClatdImport.toml(String(decoding: try readFile(file), as: UTF8.self)), terminator: "")
        } catch {
            printError("clat-agent: \(error); name clatd's file: clat-agent import-clatd FILE")
            throw ExitCode(66)
        }
    }
}
