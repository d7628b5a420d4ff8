import ClatBase
import Glibc
import Testing

@Suite("What the kernel gives")
struct SystemTests {
    @Test("a descriptor is closed at the end of its owner's life, and not when it was given away")
    func descriptors() throws {
        let number: CInt
        do {
            let owner = try OwnedDescriptor(opening: "/dev/null", O_RDONLY)
            number = owner.rawValue
            #expect(fcntl(number, F_GETFD) == FD_CLOEXEC)
        }
        #expect(fcntl(number, F_GETFD) == -1)
        let kept = try OwnedDescriptor(opening: "/dev/null", O_RDONLY).release()
        #expect(fcntl(kept, F_GETFD) != -1)
        close(kept)
    }

    @Test("an error names the call, its object and the reason")
    func errors() {
        #expect(throws: SystemError(call: "open /nonexistent", code: ENOENT)) {
            _ = try OwnedDescriptor(opening: "/nonexistent", O_RDONLY)
        }
        #expect(
            SystemError(call: "open /nonexistent", code: ENOENT).description
                == "open /nonexistent: No such file or directory")
    }

    @Test("a call that is interrupted is made again, one that fails is not")
    func retries() throws {
        var left = 3
        let result = try retrying("test") { () -> CInt in
            errno = EINTR
            left -= 1
            return left == 0 ? 7 : -1
        }
        #expect(result == 7)
        var calls = 0
        #expect(throws: SystemError(call: "test", code: EIO)) {
            try retrying("test") { () -> CInt in
                calls += 1
                errno = EIO
                return -1
            }
        }
        #expect(calls == 1)
    }

    @Test("a thread of one's own has its own kernel state and hands back its result")
    func threads() throws {
        let own = gettid()
        #expect(try onDedicatedThread(name: "test") { () throws(SystemError) in gettid() } != own)
        #expect(throws: SystemError(call: "test", code: EPERM)) {
            try onDedicatedThread(name: "test") { () throws(SystemError) -> Int in
                throw SystemError(call: "test", code: EPERM)
            }
        }
    }

    @Test("the clock counts nanoseconds and does sums with durations")
    func clock() {
        let start = BootInstant.now
        #expect(BootInstant.now >= start)
        #expect((start + .milliseconds(1500)) - start == .milliseconds(1500))
        #expect(start + .seconds(1) > start)
    }
}
