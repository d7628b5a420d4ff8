import ClatBase
import Glibc
import Testing

@testable import ClatAgent

@Suite("The key of the CLAT addresses")
struct SecretTests {
    @Test("is made once, kept for root alone, and read again")
    func kept() {
        let directory = "/tmp/clat-agent-secret-\(getpid())-\(UInt32.random(in: .min ... .max))"
        defer {
            unlink("\(directory)/secret")
            rmdir(directory)
        }
        let first = Secret.load(directory: directory)
        #expect(first.problem == nil)
        #expect(first.secret.count == Secret.size && Set(first.secret).count > 8)
        #expect(Secret.load(directory: directory).secret == first.secret)
        var status = stat()
        #expect(stat("\(directory)/secret", &status) == 0)
        #expect(status.st_mode & 0o777 == 0o600)
    }

    @Test(
        "a file that is none is replaced by a key; one that cannot be read is left, and that is said",
        arguments: [[], [1, 2, 3], [UInt8](repeating: 7, count: Secret.size - 1)] as [[UInt8]])
    func damaged(octets: [UInt8]) throws {
        let directory = "/tmp/clat-agent-secret-\(getpid())-\(UInt32.random(in: .min ... .max))"
        let file = "\(directory)/secret"
        try retrying("mkdir") { mkdir(directory, 0o700) }
        defer {
            unlink(file)
            rmdir(file)
            rmdir(directory)
        }
        try replaceFile(file, with: octets)
        let first = Secret.load(directory: directory)
        #expect(first.problem == nil && first.secret.count == Secret.size && first.secret != octets)
        #expect(Secret.load(directory: directory).secret == first.secret)
        var status = stat()
        #expect(stat(file, &status) == 0 && status.st_mode & 0o777 == 0o600)
        unlink(file)
        try retrying("mkdir") { mkdir(file, 0o700) }
        let second = Secret.load(directory: directory)
        #expect(second.problem?.code == EISDIR && second.secret.count == Secret.size)
    }

    @Test("is made for the run where it cannot be kept, and that is said")
    func unkept() {
        let first = Secret.load(directory: "/proc/nonexistent")
        #expect(first.problem?.code == ENOENT)
        #expect(first.secret.count == Secret.size)
        #expect(Secret.load(directory: "/proc/nonexistent").secret != first.secret)
    }

    @Test(
        "an identifier depends on prefix, interface, DAD counter and key, and on nothing else",
        arguments: [
            ("2001:db8:1::/64", "eth0", 0, UInt8(1)), ("2001:db8:2::/64", "eth0", 0, 1),
            ("2001:db8:1::/64", "eth1", 0, 1),
            ("2001:db8:1::/64", "eth0", 1, 1), ("2001:db8:1::/64", "eth0", 0, 2),
        ] as [(String, String, Int, UInt8)])
    func identifiers(prefix: String, interface: String, counter: Int, key: UInt8) throws {
        func make(_ prefix: String, _ interface: String, _ counter: Int, _ key: UInt8) throws -> UInt64 {
            InterfaceIdentifier.make(
                prefix: try #require(IPv6Prefix(prefix)), interface: interface, dadCounter: counter,
                secret: [UInt8](repeating: key, count: 32))
        }
        let identifier = try make(prefix, interface, counter, key)
        #expect(try make(prefix, interface, counter, key) == identifier)
        let reference = try make("2001:db8:1::/64", "eth0", 0, 1)
        #expect((identifier == reference) == ((prefix, interface, counter, key) == ("2001:db8:1::/64", "eth0", 0, 1)))
    }

    @Test("reserved identifiers are known at their borders (RFC 5453)")
    func reserved() {
        for identifier: UInt64 in [
            0, 0x0200_5eff_fe00_0000, 0x0200_5eff_fe00_5213, 0xfdff_ffff_ffff_ff80, 0xfdff_ffff_ffff_ffff,
        ] {
            #expect(InterfaceIdentifier.isReserved(identifier))
        }
        for identifier: UInt64 in [
            1, 0x0200_5eff_fdff_ffff, 0x0200_5eff_fe00_5214, 0xfdff_ffff_ffff_ff7f, 0xfe00_0000_0000_0000,
        ] {
            #expect(!InterfaceIdentifier.isReserved(identifier))
        }
    }
}
